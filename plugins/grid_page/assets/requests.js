// Requests to the page's own server. Errors carry the server's message.

export class RequestError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function send(path, options) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new RequestError("Airflow does not answer", 0);
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.status === 401) throw new RequestError("You are logged out: log in to Airflow again", 401);
  if (!answer.ok) {
    const detail = typeof body.detail === "string" ? body.detail : JSON.stringify(body.detail ?? "");
    throw new RequestError(detail || `Airflow answered ${answer.status}`, answer.status);
  }
  return body;
}

export const ask = (path) => send(path, {});

export const act = (path, body = {}) =>
  send(path, {
    method: "POST",
    // The server refuses requests without this header: a page of another site cannot send it.
    headers: { "Content-Type": "application/json", "X-TinyTags-Grid": "1" },
    body: JSON.stringify(body),
  });
