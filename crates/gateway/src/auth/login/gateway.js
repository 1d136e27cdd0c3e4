// The calls of this gateway that a sign-in takes.

import { Failure } from "./failure.js";

const PATIENCE_MS = 30_000;

async function post(path, body, token) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  let answer;
  try {
    // Relative to /v1/auth/login/: the gateway may stand behind a path of another server.
    response = await fetch(new URL(`../${path}`, import.meta.url), {
      method: "POST",
      headers,
      body: JSON.stringify(body),
      credentials: "omit",
      cache: "no-store",
      redirect: "error",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    answer = await response.json();
  } catch {
    throw new Failure("The gateway does not answer. Check your network and that the gateway runs, then try again.");
  }
  if (response.ok) return answer;
  const wait = Number.parseInt(response.headers.get("Retry-After") ?? "", 10) || 0;
  if (response.status === 429) {
    const seconds = Math.max(wait, 1);
    throw new Failure(`Too many attempts. Wait ${seconds} ${seconds === 1 ? "second" : "seconds"}, then try again.`, { wait: seconds });
  }
  const failure = new Failure(`The gateway refused: ${typeof answer.error === "string" ? answer.error : `status ${response.status}`}.`, { wait });
  failure.status = response.status;
  throw failure;
}

export const challenge = (wallet, namespace, chainId) =>
  post("challenge", { wallet, purpose: "browser sign-in", chain_id: chainId, ...(namespace ? { namespace } : {}) });

export const verify = ({ wallet, namespace, nonce }, signature, chainId) =>
  post("verify", { wallet, namespace, nonce, signature, chain_id: chainId });

export const makeKey = (token, name) => post("api-key", { name }, token);
