// Calls of the gateway. The session's cookie is sent by the browser; no token is kept here.

import { emit } from "./bus.js";

/** An error that the gateway answered (`answer`), or a gateway that cannot be reached (`status` 0). */
export class ApiError extends Error {
  constructor(message, status, code, answer = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.answer = answer;
  }
}

/**
 * Call `path` and return the JSON of the answer, or null without a body; throws `ApiError`.
 * `token` signs in: the gateway answers with the cookie of a session.
 */
export async function call(path, { method = "GET", body, signal, token } = {}) {
  // a browser cannot send it as a header, and no token is such
  if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) {
    throw new ApiError("the token has characters that no token has", 401, "unauthorised");
  }
  const headers = { accept: "application/json" };
  if (method !== "GET") headers["x-dimee-dashboard"] = "1";
  if (token !== undefined) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      signal,
      cache: "no-store",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("the gateway cannot be reached; is it running?", 0, "unreachable");
  }
  const answer = await response.json().catch(() => null);
  if (response.ok) return answer;
  const problem = answer?.error ?? {};
  if (response.status === 401 && token === undefined) emit("signed-out");
  throw new ApiError(
    problem.message ?? `the gateway answered with status ${response.status}`,
    response.status,
    problem.code ?? null,
    answer,
  );
}
