// Asks for /activity once a second and shows it. Text goes in as text, never as markup.

const POLL = 1000;
const STATES = {
  fresh: ["good", "valid"],
  stale: ["warn", "valid, but a new one is due"],
  suspect: ["warn", "not expired, but the API answered it with 401"],
  expired: ["bad", "requests are waiting for a new one"],
  absent: ["bad", "none yet; requests are waiting for one"],
};
const CHART_BARS = 100;

const at = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const shown = new Map(); // rows of exchanges by id
let last = null; // the last activity
let skew = 0; // the proxy's clock less ours, in seconds
let paused = false;

// Words.

function span(seconds) {
  const left = Math.max(0, Math.round(seconds));
  const two = (value) => String(value).padStart(2, "0");
  if (left >= 3600) return `${Math.floor(left / 3600)}h ${two(Math.floor((left % 3600) / 60))}m`;
  return left >= 60 ? `${Math.floor(left / 60)}m ${two(left % 60)}s` : `${left}s`;
}

function duration(seconds) {
  const value = seconds < 0.9995 ? seconds * 1000 : seconds;
  return `${Number(value.toPrecision(3))} ${seconds < 0.9995 ? "ms" : "s"}`;
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${unit ? value.toPrecision(3) : value} ${units[unit]}`;
}

const time = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");
const severity = (status) => (status >= 500 ? "bad" : status >= 400 ? "warn" : "good");

// Elements.

function set(id, text) {
  const element = at(id);
  if (element.textContent !== text) element.textContent = text;
}

function element(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = kind;
  return made;
}

function cell(content, kind = "") {
  const made = element("td", "", kind);
  made.append(content);
  return made;
}

function badge(id, text, kind) {
  set(id, text);
  at(id).className = `badge ${kind}`;
}

// What is shown.

function show(activity) {
  last = activity;
  skew = activity.timestamp_seconds - Date.now() / 1000;
  set("version", activity.version);
  set("route", `${activity.listen.join(", ")} → ${activity.api}`);
  const { ok, reason } = activity.ready;
  badge("connection", reason === "started" ? "ready" : reason, ok ? "good" : "warn");
  const token = activity.token;
  badge("state", token.state, STATES[token.state][0]);
  set("state-text", token.refresh_in_flight ? "a new one is being requested" : STATES[token.state][1]);
  set("lifetime", token.lifetime_seconds === null ? "–" : span(token.lifetime_seconds));
  set("scope", token.scope ?? "–");
  set("fingerprint", token.fingerprint ?? "–");
  set("client-id", token.client_id ?? "–");
  showCredentials(token);
  at("last-error").hidden = token.last_error === null;
  set("last-error", `The last token request failed: ${token.last_error}`);
  if (document.activeElement !== at("level")) at("level").value = activity.log_level;
  for (const [name, count] of Object.entries(activity.totals)) {
    if (at(name)) set(name, name.endsWith("_bytes") ? size(count) : number.format(count));
  }
  set("connections", String(Object.values(activity.upstream_connections).reduce((a, b) => a + b, 0)));
  at("client-unauthorized").hidden = activity.totals.client_authorization_unauthorized === 0;
  countDown();
  at("inspecting").hidden = !activity.inspecting;
  if (!paused) {
    showExchanges(activity);
    chart(activity.exchanges);
  }
  showRefreshes(activity.refreshes);
  showRejections(activity.rejections);
}

function showCredentials({ credentials_refused: refused, client_id: serving, candidate }) {
  at("credentials-refused").hidden = !refused;
  set(
    "credentials-refused",
    `The token endpoint denies the credentials of ${serving}. ` +
      "Put the right pair into the credential files, or change the settings and restart the proxy.",
  );
  at("candidate").hidden = candidate === null;
  if (candidate === null) return;
  const { client_id: id, since_timestamp_seconds: since, last_error: error } = candidate;
  set(
    "candidate",
    `The credential files have held another pair, of ${id}, since ${time(since)}. ` +
      (error === null ? "It has not been tried yet. " : `It is not in use: ${error}. `) +
      `The pair of ${serving} goes on. Do not revoke the old secret, and correct the files.`,
  );
}

function countDown() {
  if (last === null) return;
  const now = Date.now() / 1000 + skew;
  const { token } = last;
  set("refresh-in", token.refresh_in_flight ? "now" : span(token.next_refresh_timestamp_seconds - now));
  const { issued_timestamp_seconds: issued, expires_timestamp_seconds: expires } = token;
  const life = at("life");
  life.hidden = expires === null;
  if (expires === null) return set("expires-in", "–");
  set("expires-in", span(expires - now));
  const percent = (instant) => Math.min(100, Math.max(0, (100 * (instant - issued)) / (expires - issued)));
  const used = percent(now);
  life.setAttribute("aria-valuenow", used.toFixed(0));
  life.setAttribute("aria-valuetext", `expires in ${span(expires - now)}`);
  at("life-used").style.width = `${used}%`;
  at("life-mark").style.left = `calc(${percent(token.next_refresh_timestamp_seconds)}% - .1rem)`;
}

function showExchanges(activity) {
  const { exchanges } = activity;
  const body = at("exchanges");
  const present = new Set(exchanges.map((exchange) => exchange.id));
  for (const [id, rows] of shown) {
    if (!present.has(id)) {
      rows.forEach((row) => row.remove());
      shown.delete(id);
    }
  }
  for (const exchange of exchanges.toReversed()) {
    if (shown.has(exchange.id)) continue;
    const row = exchangeRow(exchange, activity.inspecting);
    shown.set(exchange.id, [row]);
    body.prepend(row);
  }
  at("no-exchanges").hidden = exchanges.length > 0;
}

function exchangeRow(exchange, inspecting) {
  const row = element("tr");
  let operation = exchange.operation;
  if (inspecting) {
    operation = element("button", exchange.operation);
    operation.type = "button";
    operation.setAttribute("aria-expanded", "false");
    operation.addEventListener("click", () => toggleDetail(exchange.id, row, operation));
  }
  row.append(
    cell(time(exchange.timestamp_seconds)),
    cell(exchange.method, "wide"),
    cell(operation, "operation"),
    cell(element("span", String(exchange.status), `badge ${severity(exchange.status)}`)),
    cell(duration(exchange.duration_seconds), "number"),
    cell(size(exchange.request_bytes), "number wide"),
    cell(size(exchange.response_bytes), "number wide"),
    cell(exchange.problem, "wide"),
  );
  return row;
}

function chart(exchanges) {
  const bars = exchanges.slice(0, CHART_BARS).map((exchange, index) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    // 0.1 ms to 10 s, by its logarithm.
    const height = Math.min(60, Math.max(3, 12 * (Math.log10(exchange.duration_seconds) + 4)));
    bar.setAttribute("class", severity(exchange.status));
    bar.setAttribute("x", String(600 - 6 * (index + 1)));
    bar.setAttribute("y", String(60 - height));
    bar.setAttribute("width", "4.5");
    bar.setAttribute("height", String(height));
    return bar;
  });
  at("chart").replaceChildren(...bars);
}

function showRefreshes(refreshes) {
  at("no-refreshes").hidden = refreshes.length > 0;
  const rows = refreshes.map((refresh) => {
    const row = element("tr");
    row.append(
      cell(time(refresh.timestamp_seconds)),
      cell(element("span", refresh.outcome, `badge ${refresh.outcome === "success" ? "good" : "bad"}`)),
      cell(refresh.reason),
      cell(duration(refresh.duration_seconds), "number wide"),
      cell(refresh.detail),
    );
    return row;
  });
  at("refreshes").replaceChildren(...rows);
}

function showRejections(rejections) {
  at("rejections-section").hidden = rejections.length === 0;
  const rows = rejections.map((rejection) => {
    const row = element("tr");
    row.append(cell(time(rejection.timestamp_seconds)), cell(rejection.reason), cell(rejection.peer));
    return row;
  });
  at("rejections").replaceChildren(...rows);
}

// What was inspected.

async function toggleDetail(id, row, button) {
  const rows = shown.get(id);
  const open = button.getAttribute("aria-expanded") === "true";
  button.setAttribute("aria-expanded", String(!open));
  if (open) return rows.splice(1).forEach((detail) => detail.remove());
  const detail = element("tr", "", "detail");
  const wide = cell("…");
  wide.colSpan = 8;
  detail.append(wide);
  rows.push(detail);
  row.after(detail);
  const answer = await fetch(`inspected/${encodeURIComponent(id)}`);
  if (!answer.ok) return wide.replaceChildren("The headers and bodies of this request are no longer kept.");
  const { request, response } = await answer.json();
  const messages = element("div", "", "messages");
  messages.append(message("Request", request), message("Response", response));
  wide.replaceChildren(messages);
}

function message(title, told) {
  const made = element("div");
  const fields = told?.fields.map(([name, value]) => `${name}: ${value}`) ?? [];
  const text = told === null ? "The API sent none." : [told.start, ...fields, "", told.body].join("\n");
  made.append(element("h3", title), element("pre", text.trimEnd()));
  return made;
}

// Actions.

async function act(path, said) {
  try {
    const answer = await fetch(path, { method: "POST", headers: { "X-Requested-With": "page" } });
    set("done", answer.ok ? said : `Rejected: ${await answer.text()}`);
  } catch {
    set("done", "The proxy does not respond.");
  }
  await look();
}

at("refresh").addEventListener("click", () => act("refresh", "A new token has been requested."));
at("level").addEventListener("change", () => {
  const level = at("level").value;
  act(`log-level?level=${level}`, `The log level is now ${level}.`);
});
at("pause").addEventListener("click", () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", String(paused));
  if (!paused && last !== null) show(last);
});

// The loop.

async function look() {
  try {
    const answer = await fetch("activity");
    if (!answer.ok) throw new Error(answer.statusText);
    show(await answer.json());
  } catch {
    badge("connection", "no response, trying again", "bad");
  }
}

async function loop() {
  if (!document.hidden) await look();
  setTimeout(loop, POLL);
}

document.addEventListener("visibilitychange", () => document.hidden || look());
setInterval(countDown, 250);
loop();
