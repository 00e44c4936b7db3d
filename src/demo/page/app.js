// The page talks to two parties, both behind the proxy: the proxy's own endpoints below /auth, and the API
// below /api. It never sees a token. Everything it shows is set as text, never as HTML.

const REPEAT_SECONDS = 5;
const AGAIN_MILLIS = 3000;
const LOG_LINES = 200;
const UNSEEN = "–";

const $ = (id) => document.getElementById(id);

/** What the page knows. */
const known = { session: null, claims: null, span: 0, fingerprint: null, refreshes: 0, expiring: null };

// ---------------------------------------------------------------- calls

/** The value of a cookie that scripts may read. */
function cookie(name) {
  const pair = document.cookie.split("; ").find((text) => text.startsWith(`${name}=`));
  return pair ? decodeURIComponent(pair.slice(name.length + 1)) : null;
}

/** Calls the proxy; the answer as {status, body}, body null unless it is JSON. Status 0: nobody answered. */
async function call(method, path, { xsrf = true, body, quiet = false } = {}) {
  const headers = { Accept: "application/json" };
  const token = cookie("XSRF-TOKEN");
  if (method !== "GET" && xsrf && token) headers["X-XSRF-TOKEN"] = token;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer = { status: 0, body: null };
  try {
    const response = await fetch(path, { method, headers, body, cache: "no-store" });
    const json = /\bjson\b/.test(response.headers.get("Content-Type") ?? "");
    answer = { status: response.status, body: json ? await response.json() : null };
  } catch {
    // The network failed or the body was no JSON after all; status tells which.
  }
  if (!quiet) logCall(`${method} ${path}`, answer);
  if (answer.status === 401) offerLogin(answer.body);
  return answer;
}

// ---------------------------------------------------------------- session

async function loadSession() {
  const { status, body } = await call("GET", "/auth/session", { quiet: true });
  if (status !== 200 || !body) {
    showState(status === 0 ? "Proxy not reachable" : `Proxy answers ${status}`, false);
    return;
  }
  const before = known.session;
  known.session = body.authenticated ? body : null;
  if (!known.session) {
    known.claims = null;
    known.span = 0;
    known.expiring = null;
    if (before) logEvent("The session ended.");
  } else {
    if (known.expiring && endOf(known.expiring.limit) > known.expiring.at) known.expiring = null;
    noticeRefresh(before, known.session);
    if (!before || before.user?.sub !== body.user?.sub) await loadClaims();
    $("notice").hidden = true;
  }
  listen();
  show();
}

// ---------------------------------------------------------------- the event stream

let events = null;

/** Keeps one event stream open as long as there is a session and somebody looks at this tab. */
function listen() {
  const wanted = Boolean(known.session) && !document.hidden;
  if (!wanted) {
    events?.close();
    events = null;
  } else if (!events) {
    events = new EventSource("/auth/events");
    // Whatever happened before it was open, /auth/session knows.
    events.addEventListener("open", () => loadSession());
    events.addEventListener("refreshed", ({ data }) => refreshed(JSON.parse(data)));
    events.addEventListener("expiring", ({ data }) => expiring(JSON.parse(data)));
    events.addEventListener("logged_out", ({ data }) => loggedOut(JSON.parse(data)));
    events.addEventListener("error", lost);
  }
  showLive();
}

function refreshed({ token_expires_at }) {
  const before = known.session;
  if (!before) return;
  known.session = { ...before, token_expires_at };
  noticeRefresh(before, known.session);
  show();
}

function expiring({ limit, at }) {
  known.expiring = { limit, at };
  logEvent(limit === "absolute" ? "The session ends soon." : "The session ends soon unless it is used.");
  tick();
}

function loggedOut({ reason }) {
  stopListening();
  const why = {
    ended: "somebody logged out",
    idle: "nobody used it",
    provider: "so did the login at the provider",
    absolute: "its time was over",
  };
  logEvent(`The session ended: ${why[reason] ?? reason}.`);
  known.session = null;
  loadSession();
}

/** A browser tries again by itself after a broken connection, but not after an answer other than 200. */
function lost() {
  showLive();
  if (events?.readyState !== EventSource.CLOSED) return;
  stopListening();
  setTimeout(loadSession, AGAIN_MILLIS);
}

function stopListening() {
  events?.close();
  events = null;
  showLive();
}

function showLive() {
  const open = events?.readyState === EventSource.OPEN;
  $("live").classList.toggle("in", open);
  $("live").textContent = open ? "Event stream open: the proxy tells this page of each change." : "No event stream.";
}

function endOf(limit) {
  return (limit === "idle" ? known.session?.idle_expires_at : known.session?.expires_at) ?? 0;
}

async function loadClaims() {
  const { status, body } = await call("GET", "/auth/userinfo");
  known.claims = status === 200 ? body : null;
}

/** A token end that moved forward means that the proxy refreshed, whoever made it do so. */
function noticeRefresh(before, now) {
  const end = now.token_expires_at;
  if (!end) return;
  const left = end - Date.now() / 1000;
  const moved = before?.token_expires_at && end > before.token_expires_at;
  known.span = moved || !before ? left : Math.max(known.span, left);
  if (moved) {
    known.refreshes += 1;
    logEvent("The proxy refreshed the access token.");
  }
}

function offerLogin(problem) {
  // Nothing more to see until somebody logs in, and no reason to announce it every few seconds.
  $("repeat").checked = false;
  const notice = $("notice");
  const link = document.createElement("a");
  link.href = sameOrigin(problem?.login_url) ?? "/auth/login?return_to=/";
  link.textContent = "Log in";
  const sentence = (problem?.title ?? "You are not logged in").replace(/\.?$/, ".");
  notice.replaceChildren(`${sentence} `, link);
  notice.hidden = false;
}

/** The URL if it stays on this site, else null. */
function sameOrigin(text) {
  try {
    const url = new URL(text, location.href);
    return text && url.origin === location.origin ? url.href : null;
  } catch {
    return null;
  }
}

async function logOut() {
  const { status, body } = await call("POST", "/auth/logout");
  const target = body?.redirect ? new URL(body.redirect, location.href) : new URL("/", location.href);
  if (status === 200 && /^https?:$/.test(target.protocol)) location.assign(target.href);
  else await loadSession();
}

// ---------------------------------------------------------------- the API

async function callApi() {
  const { status, body } = await call("GET", "/api/whoami");
  const result = $("api-result");
  const good = status === 200 && body;
  result.className = `result ${good ? "good" : "bad"}`;
  if (!good) {
    result.textContent = describe(status, body);
  } else if (body.authenticated) {
    result.textContent = `The API knows you as ${body.user ?? body.subject}; it received token ${body.token_fingerprint}.`;
  } else {
    result.textContent = "The API was reached without a token.";
  }
  if (good) showHeaders(body.headers ?? []);
  await loadSession();
}

async function post(xsrf) {
  const { status, body } = await call("POST", "/api/echo", { xsrf, body: JSON.stringify({ hello: "api" }) });
  const result = $("csrf-result");
  const good = status >= 200 && status < 300;
  result.className = `result ${good ? "good" : "bad"}`;
  result.textContent = good
    ? `${status}: the header matched, and the API received ${body?.body_bytes ?? "the"} bytes.`
    : describe(status, body);
}

function describe(status, body) {
  if (status === 0) return "No answer: the network or the proxy is down.";
  const code = body?.code ? ` (${body.code})` : "";
  return `${status}: ${body?.title ?? "no JSON in the answer"}${code}`;
}

// ---------------------------------------------------------------- showing

function show() {
  const { session, claims } = known;
  const name = claims?.name ?? session?.user?.name ?? claims?.preferred_username ?? session?.user?.sub;
  showState(session ? `Logged in${name ? ` as ${name}` : ""}` : "Not logged in", Boolean(session));
  $("login").hidden = Boolean(session);
  $("logout").hidden = !session;
  const facts = session
    ? [
        ["Name", name],
        ["E-mail", claims?.email ?? session.user?.email],
        ["Roles", claims?.realm_access?.roles?.join(", ")],
        ["Level", session.level],
        ["Idle limit", clockTime(session.idle_expires_at)],
        ["Time limit", clockTime(session.expires_at)],
      ]
    : [["Session", "none"]];
  $("who").replaceChildren(
    ...facts.filter(([, value]) => value).flatMap(([term, value]) => [element("dt", term), element("dd", value)]),
  );
  $("refreshes").textContent =
    known.refreshes === 0 ? "No refresh seen yet." : `Refreshes seen since this page was opened: ${known.refreshes}.`;
  showHeld();
  tick();
}

function showState(text, inside) {
  $("state").textContent = text;
  $("state").classList.toggle("in", inside);
}

function showHeld() {
  const cookies = document.cookie ? document.cookie.split("; ").map((pair) => pair.split("=")[0]) : [];
  const rows = cookies.map((name) => [name, name === "XSRF-TOKEN" ? "readable on purpose" : "readable"]);
  if (known.session) {
    rows.push(["session cookie", "there, but hidden from scripts"]);
    rows.push(["login cookie", "hidden too, marks this browser for its logins"]);
  }
  rows.push(["localStorage", `${localStorage.length} entries`], ["sessionStorage", `${sessionStorage.length} entries`]);
  rows.push(["tokens", "none"]);
  $("held").replaceChildren(
    ...rows.map(([name, text]) => {
      const item = element("li");
      item.append(element("code", name), element("span", text));
      return item;
    }),
  );
}

function showHeaders(headers) {
  $("api-headers").hidden = headers.length === 0;
  $("api-headers").querySelector("tbody").replaceChildren(
    ...headers.map(([name, value]) => {
      const row = element("tr");
      for (const text of [name, value]) row.append(cell(element("code", text)));
      return row;
    }),
  );
}

/** Once a second: the countdowns. */
function tick() {
  showExpiring();
  const end = known.session?.token_expires_at;
  const left = end ? Math.max(0, Math.ceil(end - Date.now() / 1000)) : null;
  $("left").textContent = left ?? UNSEEN;
  $("left-unit").textContent = lifeLeft(left);
  $("bar").max = Math.max(1, known.span);
  $("bar").value = left ?? 0;
}

function showExpiring() {
  const { expiring } = known;
  $("expiring").hidden = !expiring;
  if (!expiring) return;
  const left = Math.max(0, Math.ceil(expiring.at - Date.now() / 1000));
  $("expiring-left").textContent = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
  const final = expiring.limit === "absolute";
  $("expiring-why").textContent = final ? "however much it is used." : "unless it is used.";
  $("stay").hidden = final;
}

function lifeLeft(seconds) {
  if (seconds === null) return "no token";
  if (seconds === 0) return "seconds left; the next call of the API brings a new one";
  return seconds === 1 ? "second left" : "seconds left";
}

function logCall(what, { status, body }) {
  const fingerprint = body?.token_fingerprint ?? null;
  const tokenCell = cell(fingerprint ? element("code", fingerprint, "token") : UNSEEN);
  if (fingerprint && known.fingerprint && fingerprint !== known.fingerprint) {
    tokenCell.append(" ", element("span", "new", "fresh"));
  }
  known.fingerprint = fingerprint ?? known.fingerprint;
  const tag = element("span", status === 0 ? "failed" : String(status), `tag ${status >= 200 && status < 400 ? "good" : "bad"}`);
  logRow("", cell(element("code", what)), cell(tag), tokenCell);
}

function logEvent(sentence) {
  const text = cell(sentence);
  text.colSpan = 3;
  logRow("event", text);
}

function logRow(kind, ...cells) {
  const row = element("tr", undefined, kind);
  row.append(cell(new Date().toLocaleTimeString("en-GB")), ...cells);
  const log = $("log");
  log.querySelector(".empty")?.remove();
  log.prepend(row);
  while (log.rows.length > LOG_LINES) log.lastElementChild.remove();
}

function clearLog() {
  const row = element("tr", undefined, "empty");
  const text = cell("Nothing yet. Call the API and watch the token change.");
  text.colSpan = 4;
  row.append(text);
  $("log").replaceChildren(row);
}

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function cell(content) {
  const made = element("td");
  made.append(content);
  return made;
}

function clockTime(seconds) {
  return seconds ? new Date(seconds * 1000).toLocaleTimeString("en-GB") : null;
}

// ---------------------------------------------------------------- events

/** Runs `action` with its button disabled, so that a double click calls once. */
function onClick(id, action) {
  const button = $(id);
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await action();
    } finally {
      button.disabled = false;
      button.focus({ preventScroll: true });
    }
  });
}

onClick("call", callApi);
onClick("post-with", () => post(true));
onClick("post-without", () => post(false));
onClick("logout", logOut);
onClick("clear", async () => clearLog());
onClick("stay", callApi);

let seconds = 0;
setInterval(() => {
  tick();
  seconds += 1;
  if (seconds % REPEAT_SECONDS === 0 && !document.hidden && $("repeat").checked) callApi();
}, 1000);
// Over HTTP/1.1 a browser opens six connections to a host; tabs that nobody looks at leave theirs to the others.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) listen();
  else loadSession();
});

clearLog();
loadSession();
