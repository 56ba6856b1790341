// Authentication: asks for the service's token where one is needed, keeps it for this tab, and sends it with each request.

const KEY = "apexstream.token";
const PROTOCOL = "apexstream.v1";
const TOKEN_PREFIX = "apexstream.token.";
const TIMEOUT_MS = 10_000;

let token = loadToken();

function loadToken() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return ""; // storage is disabled: asked for again after a reload
  }
}

function saveToken(value) {
  token = value;
  try {
    sessionStorage.setItem(KEY, value);
  } catch {
    // as above
  }
}

/** fetch() of a path of the service, with the token; rejects after TIMEOUT_MS. */
export function request(path) {
  const timeout = new AbortController();
  setTimeout(() => timeout.abort(), TIMEOUT_MS);
  return fetch(path, { headers: token ? { Authorization: `Bearer ${token}` } : {}, cache: "no-store", signal: timeout.signal });
}

/** A WebSocket to a path of the service, with the token as second subprotocol: a page cannot set its headers. */
export function openSocket(path) {
  const url = new URL(path, location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  return new WebSocket(url, token ? [PROTOCOL, TOKEN_PREFIX + token] : [PROTOCOL]);
}

/**
 * Asks for the token until the service accepts it; onLocked() is called where one is needed. Resolves to the response of
 * /api/streams; rejects when the service cannot be reached.
 */
export async function authenticate(onLocked) {
  for (;;) {
    const response = await request("/api/streams");
    if (response.ok) return response.json();
    if (response.status !== 401) throw new Error(`the service answered ${response.status}`);
    onLocked();
    await promptOnce(token ? "The service does not accept this token. Check it and try again." : "");
  }
}

let pending = null;

/** One dialog at a time, however many callers. */
function promptOnce(problem) {
  pending ??= promptToken(problem).finally(() => {
    pending = null;
  });
  return pending;
}

/** Resolves once a token is entered. A dialog that was closed can be reopened from the page. */
function promptToken(problem) {
  const dialog = document.getElementById("access");
  const field = document.getElementById("access-token");
  const notice = document.getElementById("locked");
  const reopen = document.getElementById("locked-enter");
  const showProblem = (text) => {
    document.getElementById("access-problem").textContent = text;
    document.getElementById("access-problem").hidden = !text;
  };
  const openDialog = () => {
    field.value = "";
    notice.hidden = true;
    dialog.showModal();
  };
  showProblem(problem);
  reopen.onclick = openDialog;
  openDialog();
  return new Promise((resolve) => {
    let answered = false;
    document.getElementById("access-form").onsubmit = (event) => {
      event.preventDefault();
      const value = field.value.trim();
      if (!/^[A-Za-z0-9._~-]+$/.test(value)) {
        showProblem("A token has letters, digits, dots, dashes, underscores and tildes only.");
        return;
      }
      answered = true;
      saveToken(value);
      dialog.close();
      resolve();
    };
    dialog.onclose = () => {
      if (answered) return;
      notice.hidden = false;
      reopen.focus();
    };
  });
}
