// The service's token: asked for once where the service wants one, kept for this tab, and how it is shown to the service.

const KEY = "apexstream.token";
const PROTOCOL = "apexstream.v1";
const TOKEN_PREFIX = "apexstream.token.";
const PATIENCE_MS = 10_000;

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

/** fetch() of a path of the service, with the token; rejects where the service takes longer than ten seconds. */
export function request(path) {
  const late = new AbortController();
  setTimeout(() => late.abort(), PATIENCE_MS);
  return fetch(path, { headers: token ? { Authorization: `Bearer ${token}` } : {}, cache: "no-store", signal: late.signal });
}

/** A socket to a path of the service, with the token as second subprotocol: a page cannot set a socket's headers. */
export function socket(path) {
  const url = new URL(path, location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  return new WebSocket(url, token ? [PROTOCOL, TOKEN_PREFIX + token] : [PROTOCOL]);
}

/**
 * Asks for the token until the service takes it; locked() is called where it wants one. Resolves to /api/streams' answer; rejects
 * when the service is not there.
 */
export async function enter(locked) {
  for (;;) {
    const answer = await request("/api/streams");
    if (answer.ok) return answer.json();
    if (answer.status !== 401) throw new Error(`the service answered ${answer.status}`);
    locked();
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

/** Resolves once there is a token to try. A dialog that is left can be opened again from the page. */
function question(problem) {
  const dialog = document.getElementById("access");
  const field = document.getElementById("access-token");
  const left = document.getElementById("locked");
  const again = document.getElementById("locked-enter");
  const tell = (text) => {
    document.getElementById("access-problem").textContent = text;
    document.getElementById("access-problem").hidden = !text;
  };
  const show = () => {
    field.value = "";
    left.hidden = true;
    dialog.showModal();
  };
  tell(problem);
  again.onclick = show;
  show();
  return new Promise((resolve) => {
    let answered = false;
    document.getElementById("access-form").onsubmit = (event) => {
      event.preventDefault();
      const value = field.value.trim();
      if (!/^[A-Za-z0-9._~-]+$/.test(value)) {
        tell("A token has letters, digits, dots, dashes, underscores and tildes only.");
        return;
      }
      answered = true;
      remember(value);
      dialog.close();
      resolve();
    };
    dialog.onclose = () => {
      if (answered) return;
      left.hidden = false;
      again.focus();
    };
  });
}
