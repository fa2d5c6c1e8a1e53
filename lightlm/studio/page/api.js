// Calls of the studio: each sends the page's token, and a session that has ended shows the login.

const TOKEN = "lightlm-studio-token";
const POLL_MS = 500;

let whenLoggedOut = () => {};

export function onLoggedOut(act) {
  whenLoggedOut = act;
}

export class CallError extends Error {}

/** Return the answer to a request as it comes. */
export async function send(method, path, body, { signal } = {}) {
  const isFile = body instanceof Blob;
  let answer;
  try {
    answer = await fetch(path, {
      method,
      signal,
      headers: {
        "X-LightLM-Token": localStorage.getItem(TOKEN) ?? "",
        ...(body !== undefined && { "Content-Type": isFile ? "application/octet-stream" : "application/json" }),
      },
      body: body === undefined || isFile ? body : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new CallError("the studio does not answer; is `lightlm studio` still running?");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  if (answer.status === 401 && path !== "/api/login") whenLoggedOut();
  throw new CallError(said.error?.message ?? said.error ?? `the studio answered ${answer.status}`);
}

export const get = async (path) => (await send("GET", path)).json();
export const post = async (path, body = {}) => (await send("POST", path, body)).json();

/** Log in by a link's ticket or by the key. */
export async function logIn(credentials) {
  const { token } = await post("/api/login", credentials);
  localStorage.setItem(TOKEN, token);
}

export async function logOut() {
  await post("/api/logout");
  localStorage.removeItem(TOKEN);
}

export const hasToken = () => localStorage.getItem(TOKEN) !== null;

/** Run a command to its end; `show` gets its lines. Return its job, or null where it was stopped. */
export async function runCommand(request, show = () => {}, started = () => {}) {
  let job = await post("/api/jobs", request);
  started(() => send("DELETE", `/api/jobs/${job.id}`));
  while (job.state === "running") {
    show(job.lines);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    job = await get(`/api/jobs/${job.id}`);
  }
  if (job.state === "failed") throw new CallError(job.error);
  return job.state === "done" ? job : null;
}

/** Run a command from a form: its lines, its error, a button that stops it. */
export async function runInForm(form, stopButton, request, { showError, showLines }) {
  const buttons = [...form.querySelectorAll("button")].filter((button) => button !== stopButton);
  showError(form, "");
  for (const button of buttons) button.disabled = true;
  try {
    return await runCommand(request, (lines) => showLines(form, lines), (stop) => {
      stopButton.hidden = false;
      stopButton.onclick = stop;
    });
  } catch (error) {
    showError(form, error.message);
    return null;
  } finally {
    for (const button of buttons) button.disabled = false;
    stopButton.hidden = true;
    showLines(form, []);
  }
}
