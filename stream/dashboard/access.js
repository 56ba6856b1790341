// The service's token: asked for once where the service wants one, kept for this tab, and how it is shown to the service.

const KEY = "apexstream.token";
const PROTOCOL = "apexstream.v1";
const TOKEN_PREFIX = "apexstream.token.";

let token = recall();

function recall() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return ""; // storage is switched off: asked for again after a reload
  }
}

function remember(value) {
  token = value;
  try {
    sessionStorage.setItem(KEY, value);
  } catch {
    // as above
  }
}

/** fetch() of a path of the service, with the token. */
export function request(path) {
  return fetch(path, { headers: token ? { Authorization: `Bearer ${token}` } : {}, cache: "no-store" });
}

/** A socket to a path of the service, with the token as second subprotocol: a page cannot set a socket's headers. */
export function socket(path) {
  const url = new URL(path, location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  return new WebSocket(url, token ? [PROTOCOL, TOKEN_PREFIX + token] : [PROTOCOL]);
}

/** Asks for the token until the service takes it. Resolves to /api/streams' answer; rejects when the service is not there. */
export async function enter() {
  for (;;) {
    const answer = await request("/api/streams");
    if (answer.ok) return answer.json();
    if (answer.status !== 401) throw new Error(`the service answered ${answer.status}`);
    await ask(token ? "The service does not take this token. Check it and try again." : "");
  }
}

let asking = null;

/** One question at a time, however many ask. */
function ask(problem) {
  asking ??= question(problem).finally(() => {
    asking = null;
  });
  return asking;
}

function question(problem) {
  const dialog = document.getElementById("access");
  const field = document.getElementById("access-token");
  const told = document.getElementById("access-problem");
  told.textContent = problem;
  told.hidden = !problem;
  field.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const form = document.getElementById("access-form");
    const answer = (event) => {
      event.preventDefault();
      const value = field.value.trim();
      if (!/^[A-Za-z0-9._~-]+$/.test(value)) {
        told.textContent = "A token has letters, digits, dots, dashes, underscores and tildes only.";
        told.hidden = false;
        return;
      }
      form.removeEventListener("submit", answer);
      remember(value);
      dialog.close();
      resolve();
    };
    form.addEventListener("submit", answer);
    dialog.oncancel = (event) => event.preventDefault();
  });
}
