// The wallets of this browser: those that announce themselves (EIP-6963), and window.ethereum.

import { Failure, ofWallet } from "./failure.js";

const isProvider = (provider) => typeof provider?.request === "function";

/** Calls `changed` with the list of wallets, each time one is found. A wallet is `{ id, name, icon, provider }`. */
export function discover(changed) {
  const found = [];
  const add = (wallet) => {
    const old = found.findIndex((other) => other.id === wallet.id || other.provider === wallet.provider);
    if (old >= 0 && found[old].id !== INJECTED) return;
    found.splice(old >= 0 ? old : found.length, old >= 0 ? 1 : 0, wallet);
    changed([...found]);
  };
  window.addEventListener("eip6963:announceProvider", ({ detail }) => {
    const { info, provider } = detail ?? {};
    if (!isProvider(provider) || typeof info?.uuid !== "string") return;
    const name = typeof info.name === "string" && info.name.trim() ? info.name.trim().slice(0, 60) : "Unnamed wallet";
    // Nothing is loaded from elsewhere: an icon has to be the image itself.
    const icon = typeof info.icon === "string" && info.icon.startsWith("data:image/") ? info.icon : null;
    add({ id: info.uuid, name, icon, provider });
  });
  const injected = () => {
    if (isProvider(window.ethereum)) {
      add({ id: INJECTED, name: found.length ? "Other browser wallet" : "Browser wallet", icon: null, provider: window.ethereum });
    }
  };
  window.addEventListener("ethereum#initialized", injected, { once: true });
  window.dispatchEvent(new Event("eip6963:requestProvider"));
  // Wallets that announce themselves do so at once; what is left then speaks through window.ethereum alone.
  setTimeout(injected, 200);
}

const INJECTED = "window.ethereum";

/** One sign-in with a wallet. It fails as soon as account or chain change. */
export class WalletSession {
  #wallet;
  #ended;
  #end;
  #listeners = [];

  constructor(wallet) {
    this.#wallet = wallet;
    this.#ended = new Promise((_, reject) => { this.#end = reject; });
    // Whoever waits sees it; nobody may be waiting.
    this.#ended.catch(() => {});
  }

  /** Lets the person choose an account; returns `{ account, chainId }`. */
  async connect() {
    const accounts = await this.#request("eth_requestAccounts");
    const account = Array.isArray(accounts) ? accounts[0] : undefined;
    if (!/^0x[0-9a-f]{40}$/i.test(account ?? "")) {
      throw new Failure(`${this.#wallet.name} gave no account. Choose one in the wallet, then try again.`);
    }
    const chain = await this.#request("eth_chainId");
    const chainId = Number(chain);
    this.#watch(account, chainId);
    return { account, chainId: Number.isSafeInteger(chainId) && chainId > 0 ? chainId : 1 };
  }

  /** The person's signature over a text (EIP-191). */
  async sign(message, account) {
    const bytes = new TextEncoder().encode(message);
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    const signature = await this.#request("personal_sign", [`0x${hex}`, account]);
    if (!/^0x[0-9a-f]{130}$/i.test(signature ?? "")) {
      throw new Failure(`${this.#wallet.name} gave a signature of a form that is not understood here. A contract’s wallet cannot sign in; use the wallet of a key.`);
    }
    return signature;
  }

  /** Waits for something else than the wallet. */
  during(promise) {
    return Promise.race([promise, this.#ended]);
  }

  cancel() {
    this.#end(new Failure("You cancelled the sign-in. If your wallet still asks, refuse there."));
  }

  close() {
    for (const [event, listener] of this.#listeners) this.#wallet.provider.removeListener?.(event, listener);
    this.#listeners = [];
  }

  async #request(method, params) {
    try {
      return await this.during(this.#wallet.provider.request(params ? { method, params } : { method }));
    } catch (error) {
      throw ofWallet(error, this.#wallet.name);
    }
  }

  #watch(account, chainId) {
    const listen = (event, listener) => {
      this.#listeners.push([event, listener]);
      this.#wallet.provider.on?.(event, listener);
    };
    listen("accountsChanged", (accounts) => {
      if (accounts?.[0]?.toLowerCase() !== account.toLowerCase()) {
        this.#end(new Failure("The account was changed in the wallet during the sign-in. Start again with the one you want."));
      }
    });
    listen("chainChanged", (chain) => {
      if (Number(chain) !== chainId) {
        this.#end(new Failure("The network was changed in the wallet during the sign-in. Start again."));
      }
    });
    listen("disconnect", () => this.#end(new Failure(`${this.#wallet.name} lost its connection. Check the wallet, then try again.`)));
  }
}
