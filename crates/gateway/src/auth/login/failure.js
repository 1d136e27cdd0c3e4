// What went wrong, in words for the person before the page.

/** A failure whose message is meant to be read. `wait`: seconds before another attempt makes sense. */
export class Failure extends Error {
  constructor(message, { wait = 0 } = {}) {
    super(message);
    this.wait = wait;
  }
}

/** What a wallet's error means. The codes are those of EIP-1193 and EIP-1474. */
export function ofWallet(error, name) {
  if (error instanceof Failure) return error;
  switch (error?.code ?? error?.data?.originalError?.code) {
    case 4001:
    case "ACTION_REJECTED":
      return new Failure("You refused the request in your wallet. Nothing was signed.");
    case -32002:
      return new Failure(`A request is already waiting in ${name}: open the wallet, answer or close that request, then try again.`);
    case 4100:
      return new Failure(`${name} does not let this page use the account. Allow it in the wallet, then try again.`);
    case 4900:
    case 4901:
      return new Failure(`${name} is not connected to its network. Check the wallet, then try again.`);
    case 4200:
    case -32601:
      return new Failure(`${name} cannot sign messages. Choose another wallet.`);
    default: {
      const reason = typeof error?.message === "string" ? error.message.slice(0, 200) : "";
      return new Failure(`${name} could not do it${reason ? `: ${reason}` : "."}`);
    }
  }
}
