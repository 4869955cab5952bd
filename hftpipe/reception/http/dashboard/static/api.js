// Asks the service; every answer is JSON, every error has one shape.

const KEY = "hftpipe-token";
const PATIENCE_MS = 8000;

// Identifiers reach 2^63-1, beyond what a number holds here: those of so many digits are read as text.
const STRING_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

export class Failure extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (secret) => sessionStorage.setItem(KEY, secret),
  forget: () => sessionStorage.removeItem(KEY),
};

export async function ask(path, method = "GET") {
  const headers = token.get() ? { authorization: `Bearer ${token.get()}` } : {};
  const options = { method, headers, cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(PATIENCE_MS) };
  if (method === "POST") {
    headers["content-type"] = "application/json";
    options.body = "{}";
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Failure(0, "The service does not answer");
  }
  const text = await response.text();
  let body;
  try {
    body = JSON.parse(text.replace(STRING_OR_NUMBER, (part) => (/^\d{16,}$/.test(part) ? `"${part}"` : part)));
  } catch {
    throw new Failure(response.status, `the service answered ${response.status} with something else than JSON`);
  }
  if (!response.ok) throw new Failure(response.status, body.message ?? response.statusText);
  return body;
}
