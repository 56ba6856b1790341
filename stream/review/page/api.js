// What the page asks the server for: the token, pictures of frames, and the websocket.

const KEY = "apexstream.review.token";
const PROTOCOL = "apexstream.v1";

/** The token of the address that `apexstream review` printed; kept for this tab, and taken out of the address. */
function findToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  try {
    if (given) sessionStorage.setItem(KEY, given);
    history.replaceState(null, "", location.pathname);
    return given ?? sessionStorage.getItem(KEY) ?? "";
  } catch {
    return given ?? ""; // storage is disabled: the address is needed again after a reload
  }
}

const token = findToken();

/** The body of a path of the server; rejects with its sentence where it refuses. */
export async function request(path, signal) {
  const response = await fetch(path, { headers: { Authorization: `Bearer ${token}` }, cache: "no-store", signal });
  if (!response.ok) throw new Error((await response.text()).trim());
  return response;
}

export function openSocket() {
  return new WebSocket(`ws://${location.host}/`, [PROTOCOL, `${PROTOCOL.split(".")[0]}.token.${token}`]);
}
