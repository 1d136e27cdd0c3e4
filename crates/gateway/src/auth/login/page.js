// The sign-in page. It takes nothing from its address but what passes the checks below, and writes text as text only.

import { Failure } from "./failure.js";
import * as gateway from "./gateway.js";
import { discover, WalletSession } from "./wallets.js";

const CHALLENGE_MS = 5 * 60_000;
const SEARCH_MS = 700;
const SECTIONS = ["choose", "working", "failed", "done", "leaving"];

const element = (id) => document.getElementById(id);
const say = (text) => { element("status").textContent = text; };

function show(section) {
  for (const id of SECTIONS) element(id).hidden = id !== section;
}

function title(text, lead) {
  element("title").textContent = text;
  element("lead").textContent = lead;
}

/** What the address asks for. The gateway has refused what is not allowed; it is checked again here. */
function asked() {
  const query = new URLSearchParams(location.search);
  const namespace = query.get("namespace") ?? "";
  const state = query.get("state") ?? "";
  const text = query.get("callback");
  if (namespace && !/^[a-z0-9][a-z0-9_-]{0,62}$/.test(namespace)) return null;
  if (text === null) return { namespace, callback: null, state: "" };
  const form = /^http:\/\/(?:127\.0\.0\.1|localhost|\[::1\]):[0-9]{1,5}(?:[/?][A-Za-z0-9\-._~!$&()*+,;=:@/?%]*)?$/;
  if (!form.test(text) || !/^[A-Za-z0-9_-]{1,200}$/.test(state)) return null;
  const callback = new URL(text);
  const loopback = ["127.0.0.1", "localhost", "[::1]"].includes(callback.hostname);
  if (callback.protocol !== "http:" || !loopback || callback.username || callback.password || callback.hash) return null;
  return { namespace, callback, state };
}

const wanted = asked();
let session = null;
let chosen = null;
let countdown = 0;

function namespace() {
  return element("namespace").value.trim();
}

async function signIn(wallet) {
  chosen = wallet;
  const input = element("namespace");
  if (!/^(?:[a-z0-9][a-z0-9_-]{0,62})?$/.test(namespace())) {
    input.setAttribute("aria-invalid", "true");
    input.focus();
    const problem = "A namespace has 1 to 63 of a–z, 0–9, _ and -, and starts with a letter or digit.";
    element("namespace-hint").textContent = problem;
    say(problem);
    return;
  }
  input.removeAttribute("aria-invalid");
  session?.close();
  const mine = new WalletSession(wallet);
  session = mine;
  try {
    step(`Open ${wallet.name} and allow this page to see your account.`);
    const { account, chainId } = await mine.connect();
    step("Asking the gateway for a message to sign…");
    const challenge = await mine.during(gateway.challenge(account, namespace(), chainId));
    const began = performance.now();
    step(`Read the message in ${wallet.name} and sign it.`);
    const signature = await mine.sign(challenge.message, account);
    if (performance.now() - began > CHALLENGE_MS) throw expired();
    step("Checking the signature…");
    const signedIn = await mine.during(gateway.verify(challenge, signature, chainId)).catch((failure) => {
      throw failure.status === 401 && performance.now() - began > CHALLENGE_MS - 5000 ? expired() : failure;
    });
    step("Making an API key…");
    const key = await mine.during(gateway.makeKey(signedIn.access_token, wanted.callback ? "network-cli" : "sign-in page"));
    finish(signedIn, key);
  } catch (error) {
    if (session === mine) fail(error);
  } finally {
    mine.close();
  }
}

const expired = () =>
  new Failure("The message was signed too late: it is good for 5 minutes. Try again to get a new one.");

function step(text) {
  element("step").textContent = text;
  show("working");
  say(text);
}

function fail(error) {
  const failure = error instanceof Failure ? error : new Failure("The page has a defect. Load it again; if that does not help, tell the gateway’s operator.");
  if (failure !== error) console.error(error);
  element("failure").textContent = failure.message;
  show("failed");
  say(failure.message);
  const retry = element("retry");
  clearInterval(countdown);
  let left = failure.wait;
  const label = () => {
    retry.disabled = left > 0;
    retry.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
  };
  label();
  if (left > 0) {
    countdown = setInterval(() => {
      left -= 1;
      label();
      if (left <= 0) clearInterval(countdown);
    }, 1000);
    element("back").focus();
  } else {
    retry.focus();
  }
}

function finish(signedIn, key) {
  if (wanted.callback) {
    const target = new URL(wanted.callback);
    const result = {
      api_key: key.api_key,
      refresh_token: signedIn.refresh_token,
      namespace: key.namespace,
      wallet: key.wallet,
      plan: key.plan,
      expires_at: signedIn.expires_at,
      state: wanted.state,
    };
    for (const [name, value] of Object.entries(result)) target.searchParams.set(name, value);
    title("Signed in", "");
    show("leaving");
    say("You are signed in. The program continues.");
    // Replaced, not added: the address with the key does not stay one step back.
    location.replace(target);
    return;
  }
  element("done-namespace").textContent = key.namespace;
  element("done-wallet").textContent = key.wallet;
  element("key").value = key.api_key;
  const base = new URL("../../..", import.meta.url).href.replace(/\/$/, "");
  element("example").textContent = `curl -H "X-API-Key: $DEBROS_API_KEY" \\\n  ${base}/v1/auth/whoami`;
  title("You are signed in", "Programs use this key in your place.");
  show("done");
  element("footer").textContent = "";
  say("You are signed in. The API key is on the page.");
  element("title").focus();
}

async function copy() {
  const key = element("key");
  try {
    await navigator.clipboard.writeText(key.value);
    element("copy").textContent = "Copied";
    say("The API key is copied.");
  } catch {
    // Not allowed, or the page is not served over HTTPS.
    key.focus();
    key.select();
    say("The API key is selected: copy it with the keyboard.");
  }
}

function list(wallets) {
  element("searching").hidden = true;
  element("no-wallet").hidden = true;
  element("wallets-title").hidden = false;
  element("where").hidden = false;
  const entries = wallets.map((wallet) => {
    const button = document.createElement("button");
    button.type = "button";
    if (wallet.icon) {
      const icon = document.createElement("img");
      icon.src = wallet.icon;
      icon.alt = "";
      button.append(icon);
    } else {
      const icon = document.createElement("span");
      icon.className = "no-icon";
      icon.setAttribute("aria-hidden", "true");
      icon.textContent = wallet.name.slice(0, 1);
      button.append(icon);
    }
    const name = document.createElement("span");
    name.textContent = wallet.name;
    button.append(name);
    button.addEventListener("click", () => signIn(wallet));
    const entry = document.createElement("li");
    entry.append(button);
    return entry;
  });
  element("wallets").replaceChildren(...entries);
}

function start() {
  if (!wanted) {
    // The gateway refuses such an address; this is for a page that was changed on its way.
    title("This sign-in link cannot be used", "Start again from the program that opened this page.");
    return;
  }
  if (wanted.namespace) {
    element("namespace").value = wanted.namespace;
    element("namespace").readOnly = true;
  }
  if (wanted.callback) {
    element("footer").textContent = `Afterwards you return to the program on this computer that opened this page (${wanted.callback.host}).`;
  }
  element("cancel").addEventListener("click", () => session?.cancel());
  element("retry").addEventListener("click", () => signIn(chosen));
  element("back").addEventListener("click", () => {
    clearInterval(countdown);
    show("choose");
    element("wallets").querySelector("button")?.focus();
  });
  element("reload").addEventListener("click", () => location.reload());
  element("copy").addEventListener("click", copy);
  show("choose");
  let some = false;
  discover((wallets) => {
    some = true;
    list(wallets);
  });
  setTimeout(() => {
    if (some) return;
    element("searching").hidden = true;
    element("wallets-title").hidden = true;
    element("where").hidden = true;
    element("no-wallet").hidden = false;
    say("No wallet was found in this browser.");
  }, SEARCH_MS);
}

start();
