// The service's API: requests with the key, errors in OpenAI's shape, streams of server-sent events.
// Addresses are relative, so that the page also works below a path of a proxy.

const KEY = "tritforge.key";

// The API key is in memory only, unless the user asks to keep it in localStorage.
let apiKey = "";
try {
  apiKey = localStorage.getItem(KEY) ?? "";
} catch {
  // Storage is off.
}

export const key = {
  get value() {
    return apiKey;
  },
  get kept() {
    try {
      return localStorage.getItem(KEY) !== null;
    } catch {
      return false;
    }
  },
  set(value, keep) {
    apiKey = value.trim();
    try {
      if (keep && apiKey) localStorage.setItem(KEY, apiKey);
      else localStorage.removeItem(KEY);
    } catch {
      // Only this page has it then.
    }
  },
};

/** An answer that is an error, or none at all (`status` 0). */
export class ApiError extends Error {
  constructor(status, message, code = null, retryAfter = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

async function errorOf(response) {
  let message = `${response.status} ${response.statusText}`.trim();
  let code = null;
  try {
    const { error } = await response.json();
    if (typeof error?.message === "string") message = error.message;
    code = error?.code ?? null;
  } catch {
    // A proxy's page, perhaps: the status says enough.
  }
  return new ApiError(response.status, message, code, response.headers.get("retry-after"));
}

/** The response to a GET, or to a POST if there is a body. */
export async function request(path, { body, signal } = {}) {
  const headers = {};
  if (apiKey) headers.authorization = `Bearer ${apiKey}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "same-origin",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The service cannot be reached.");
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

export async function json(path, options) {
  return (await request(path, options)).json();
}

/** The objects of a stream of server-sent events, up to `[DONE]`. */
export async function* events(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      let chunk;
      try {
        chunk = await reader.read();
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new ApiError(0, "The connection was lost before the answer was complete.");
      }
      if (chunk.done) break;
      rest += decoder.decode(chunk.value, { stream: true });
      const lines = rest.split(/\r\n|\n|\r/);
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue;
        const data = line.slice(5).trim();
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new ApiError(200, event.error.message, event.error.code);
        yield event;
      }
    }
    throw new ApiError(0, "The connection was lost before the answer was complete.");
  } finally {
    reader.cancel().catch(() => {});
  }
}
