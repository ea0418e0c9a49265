"use strict";
// Polls JSON and draws it. Every text of the server's goes through textContent: nothing is ever parsed as HTML.

const PAGES = [["overview", "Overview"], ["pool", "Pool"], ["live", "Live"], ["queries", "Queries"], ["slow", "Slow log"], ["findings", "Findings"], ["events", "Events"]];
const LANES = ["critical", "high", "normal", "low", "background"];
const COLOURS = ["#c2255c", "#e8710a", "#1971c2", "#2f9e44", "#868e96", "#7048e8"];
const KEPT = 900;
const EVERY = 2000;

const known = { seq: 0, points: [], events: [], last: null };
const etags = new Map();
let token = sessionStorage.getItem("magnus-token") || "";
let view = null; // { page, draw(), charts }
let timer = 0;

// --- elements

function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) made.append(child instanceof Node ? child : String(child));
  return made;
}

const card = (title, ...children) => el("section", { class: "card" }, title ? el("h2", {}, title) : null, ...children);
const soft = (text) => el("p", { class: "soft" }, text);

function table(columns, rows, empty) {
  if (!rows.length) return soft(empty);
  const head = columns.map(([title, , kind, sort]) => el("th", { class: kind, scope: "col" }, sort ? el("button", { type: "button", onclick: sort }, title) : title));
  const body = rows.map((row) => el("tr", {}, columns.map(([title, value, kind]) => el("td", { class: kind, "data-title": title }, value(row)))));
  return el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Table" }, el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)));
}

const SVG = "http://www.w3.org/2000/svg";
function spark(values) {
  const made = document.createElementNS(SVG, "svg");
  made.setAttribute("class", "spark");
  made.setAttribute("viewBox", "0 0 110 24");
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", `calls over time: ${values.join(", ")}`);
  if (values.length > 1) {
    const top = Math.max(...values, 1e-9);
    const line = document.createElementNS(SVG, "polyline");
    line.setAttribute("points", values.map((value, i) => `${((i * 110) / (values.length - 1)).toFixed(1)},${(22 - (20 * value) / top).toFixed(1)}`).join(" "));
    made.append(line);
  }
  return made;
}

// --- words for numbers

function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.001) return `${(value * 1e6).toFixed(0)} µs`;
  if (value < 1) return `${(value * 1000).toFixed(value < 0.01 ? 2 : 1)} ms`;
  if (value < 120) return `${value.toFixed(1)} s`;
  return value < 7200 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`;
}
const ms = (value) => (value === null || value === undefined ? "–" : seconds(value / 1000));
const whole = (value) => (value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en"));
const few = (value) => (value === null || value === undefined ? "–" : value < 10 && value % 1 ? value.toFixed(1) : whole(value));
const percent = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)} %`);
const counted = (value, one, many) => `${whole(value)} ${value === 1 ? one : many}`;
const clock = (at) => new Date(at * 1000).toLocaleTimeString();
const moment = (text) => (text ? new Date(text).toLocaleString() : "–");
function bytes(value) {
  if (value === null || value === undefined) return "–";
  let unit = 0;
  while (value >= 1024 && unit < 4) { value /= 1024; unit += 1; }
  return `${value.toFixed(value < 10 && unit ? 1 : 0)} ${["B", "kB", "MB", "GB", "TB"][unit]}`;
}

// --- charts

function chart(title, unit, series) {
  const box = el("div", { class: "chart", role: "img", "aria-label": title });
  const made = { box: card(title, box), plot: null };
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const ink = dark ? "#9fb0c0" : "#5b6b7b";
  const grid = { stroke: dark ? "#33414e" : "#e3e9ef", width: 1 };
  const show = unit === "s" ? seconds : few;
  const mark = unit === "s" ? (value) => seconds(value).replace(/\.0+ /, " ") : few;
  made.data = () => [known.points.map((point) => point.at), ...series.map(([, , read]) => known.points.map((point) => read(point) ?? null))];
  made.draw = () => {
    const width = box.clientWidth;
    if (!width) return;
    if (!made.plot) {
      const lines = series.map(([label, colour, , fill]) => ({ label, stroke: colour, width: 1.5, fill: fill ? `${colour}33` : undefined, spanGaps: false, points: { show: false }, value: (_, value) => (value === null ? "–" : show(value)) }));
      made.plot = new uPlot({
        width, height: 220, series: [{}, ...lines], legend: { live: true },
        axes: [{ stroke: ink, grid, ticks: grid }, { stroke: ink, grid, ticks: grid, size: 72, values: (_, ticks) => ticks.map(mark) }],
        scales: { y: { range: (_, low, high) => [0, Math.max(high || 0, unit === "s" ? 0.0001 : 1) * 1.08] } },
      }, made.data(), box);
    } else made.plot.setData(made.data());
    if (made.plot.width !== width) made.plot.setSize({ width, height: 220 });
  };
  return made;
}

function charts(list) {
  const grid = el("div", { class: "grid" }, list.map((each) => each.box));
  return { grid, draw: () => list.forEach((each) => each.draw()) };
}

// --- the server's answers

class NeedsToken extends Error {}

async function ask(path) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const kept = etags.get(path);
  if (kept) headers["If-None-Match"] = kept.etag;
  const response = await fetch(`api/${path}`, { headers, cache: "no-store" });
  if (response.status === 304 && kept) return kept.body;
  if (response.status === 401) throw new NeedsToken();
  if (!response.ok) throw new Error(response.status === 403 ? `refused: ${(await response.json()).reason}` : `status ${response.status}`);
  const body = await response.json();
  if (!path.startsWith("snapshot")) {
    if (etags.size > 100) etags.clear();
    etags.set(path, { etag: response.headers.get("ETag"), body });
  }
  return body;
}

async function refresh() {
  const found = await ask(`snapshot?since=${known.seq}`);
  if (known.last && found.started !== known.last.started) { Object.assign(known, { seq: 0, points: [], events: [], last: null }); return refresh(); }
  known.points = known.points.concat(found.points).slice(-KEPT);
  known.events = known.events.concat(found.events).slice(-200);
  known.seq = found.seq;
  known.last = found;
}

const missing = (found) => (found.unavailable ? el("p", { class: "warning-text" }, `Not available: ${found.unavailable}`) : null);

// --- pages: each returns { node, update() }, update is called after every poll

function numbers(pairs) { return el("div", { class: "numbers" }, pairs.map(([label, value, kind]) => el("div", { class: "card number" }, el("b", { class: kind }, value), el("span", {}, label)))); }

function tail() { return known.points[known.points.length - 1]; }

function verdicts(server, findings) {
  const last = known.last;
  const rows = [];
  if (last.has_pool) {
    const health = last.health;
    rows.push(health.reason ? ["error", `Not ready: ${health.reason}`] : ["good", "Ready: the database answers and the pool hands out connections"]);
    if (last.stats.pool_stats.is_failing) rows.push(["error", "The pool opens no connections: one attempt at a time, see Events"]);
    const fleet = last.stats.fleet;
    if (fleet?.state === "over") rows.push(["warning", `${fleet.instances} instances may open ${fleet.connections} connections, ${fleet.budget} are there for them`]);
    const queued = ((last.stats.pooler || {}).pools || []).reduce((sum, pool) => sum + pool.clients_waiting, 0);
    if (queued) rows.push(["warning", `${counted(queued, "client waits", "clients wait")} for a server connection at PgBouncer: see Pool`]);
    const point = tail();
    if (point && point.used / point.max > 0.9) rows.push(["warning", `Pool ${percent(point.used / point.max)} in use, ${point.waiting} waiting`]);
  }
  if (server.unavailable) rows.push(["error", `Server: ${server.unavailable}`]);
  else {
    const used = server.connections.used / server.connections.max;
    rows.push([used > 0.85 ? "error" : used > 0.7 ? "warning" : "good", `Connections ${server.connections.used} of ${server.connections.max}`]);
    if (server.blocked) rows.push(["warning", `${counted(server.blocked, "session waits", "sessions wait")} for a lock: see Live`]);
    if (server.idle_in_transaction) rows.push(["warning", `${counted(server.idle_in_transaction, "session", "sessions")} idle in a transaction`]);
  }
  if (findings && findings.summary) rows.push([findings.summary.error ? "error" : findings.summary.warning ? "warning" : "good", `Checks: ${findings.summary.error} errors, ${findings.summary.warning} warnings, ${findings.summary.ok} fine, ${findings.summary.unknown} unknown`]);
  const order = ["error", "warning", "good"];
  rows.sort((a, b) => order.indexOf(a[0]) - order.indexOf(b[0]));
  return el("ul", { class: "verdicts", "aria-label": "Verdicts" }, rows.map(([kind, text]) => el("li", { class: kind }, text)));
}

const poolCharts = () => [
  chart("Connections", "", [["in use", COLOURS[2], (p) => p.used, true], ["idle", COLOURS[3], (p) => p.free], ["waiting callers", COLOURS[0], (p) => p.waiting], ["max", COLOURS[4], (p) => p.max]]),
  chart("Statements a second", "", [["statements", COLOURS[2], (p) => p.statements, true], ["failed", COLOURS[0], (p) => p.failed], ["slow", COLOURS[1], (p) => p.slow], ["repeated", COLOURS[5], (p) => p.retries]]),
  chart("Duration of statements", "s", [["p50", COLOURS[3], (p) => p.duration[0]], ["p95", COLOURS[1], (p) => p.duration[1]], ["p99", COLOURS[0], (p) => p.duration[2]]]),
];

function behind({ pooler, replicas, fleet }) { // what stands between the pool and its server, and beside that
  const cards = [];
  if (pooler) cards.push(card(pooler.version ? `PgBouncer ${pooler.version}` : "PgBouncer", missing(pooler) || table([["role", (r) => r.user || "–"], ["clients served or idle", (r) => whole(r.clients_active), "n"], ["waiting", (r) => whole(r.clients_waiting), "n"], ["longest wait", (r) => ms(r.max_wait_ms), "n"], ["server connections at work", (r) => whole(r.servers_active), "n"], ["idle", (r) => whole(r.servers_idle), "n"], ["connecting", (r) => whole(r.servers_connecting), "n"]], pooler.pools, "No connection to this database is open.")), el("p"));
  if (replicas) cards.push(card("Standbys", table([["standby", (r) => el("code", {}, r.target)], ["state", (r) => (r.usable ? "gives answers" : "passed over")], ["behind", (r) => (r.behind_bytes === null ? "–" : `${whole(r.behind_bytes)} B`), "n"], ["answer takes", (r) => ms(r.latency_ms), "n"], ["reads", (r) => whole(r.reads), "n"], ["failed", (r) => whole(r.failed), "n"]], replicas.members, "None."), soft(`Reads that went to the primary: ${whole(replicas.primary_reads)}; that waited for a standby: ${whole(replicas.waits)}.`)), el("p"));
  if (fleet?.instances) cards.push(card("All instances on this server", table([["instances", (r) => whole(r.instances), "n"], ["may open", (r) => whole(r.connections), "n"], ["are there for them", (r) => whole(r.budget), "n"], ["limited by", (r) => r.limit], ["used by others", (r) => whole(r.others), "n"], ["reserved", (r) => whole(r.reserved), "n"], ["this pool", (r) => `${r.pool_size} of ${r.max_pool_size}`, "n"], ["beside it", (r) => whole(r.beside), "n"]], [fleet], "")));
  return cards;
}

const pages = {
  overview() {
    const top = el("div"); const list = el("div"); const drawn = charts(poolCharts());
    let findings = null; // the checks take their time: what else there is does not wait for them
    return {
      node: [el("h1", {}, "Overview"), top, known.last.has_pool ? drawn.grid : null, list],
      async update() {
        ask("findings").then((found) => { findings = found; }, () => {});
        const [server, queries] = await Promise.all([ask("server"), ask("queries?sort=total&limit=8")]);
        const point = tail();
        const big = known.last.has_pool && point ? [["statements a second", whole(point.statements)], ["p95 of the last second", seconds(point.duration[1])], ["connections in use", `${point.used} / ${point.max}`], ["callers waiting", whole(point.waiting), point.waiting ? "warning-text" : ""]] : server.unavailable ? [] : [["transactions a second", whole(server.tps)], ["sessions", `${server.connections.used} / ${server.connections.max}`], ["active", whole(server.active)], ["blocked", whole(server.blocked), server.blocked ? "error-text" : ""]];
        top.replaceChildren(verdicts(server, findings), numbers(big));
        list.replaceChildren(card("Most of the server's time", missing(queries) || queryTable(queries, () => {})));
        drawn.draw();
      },
    };
  },
  pool() {
    if (!known.last.has_pool) return { node: [el("h1", {}, "Pool"), soft("This dashboard watches a server, not a service: there is no pool here. Mount it in a service to see its pool.")], update() {} };
    const lanes = el("div"); const others = el("div");
    const drawn = charts([
      ...poolCharts(),
      chart("In use, by lane", "", LANES.map((lane, i) => [lane, COLOURS[i], (p) => p.lanes[lane]?.used])),
      chart("Waiting, by lane", "", LANES.map((lane, i) => [lane, COLOURS[i], (p) => p.lanes[lane]?.waiting])),
      chart("Wait for a connection, p95 by lane", "s", LANES.map((lane, i) => [lane, COLOURS[i], (p) => p.lanes[lane]?.wait[1]])),
      chart("Duration of statements, p95 by lane", "s", LANES.map((lane, i) => [lane, COLOURS[i], (p) => p.lanes[lane]?.duration[1]])),
      chart("Timed out or refused a second", "", LANES.map((lane, i) => [lane, COLOURS[i], (p) => (p.lanes[lane] ? p.lanes[lane].timeouts + p.lanes[lane].rejected : null)])),
      chart("Given a second, by lane", "", LANES.map((lane, i) => [lane, COLOURS[i], (p) => p.lanes[lane]?.acquired])),
    ]);
    return {
      node: [el("h1", {}, "Pool"), lanes, el("p"), others, el("p"), drawn.grid],
      update() {
        others.replaceChildren(...behind(known.last.stats));
        const stats = known.last.stats.pool_stats;
        const rows = Object.entries(stats.lanes);
        lanes.replaceChildren(card("Lanes since the start", table([["lane", (r) => r[0]], ["in use", (r) => whole(r[1].used), "n"], ["may use", (r) => whole(r[1].cap), "n"], ["waiting", (r) => whole(r[1].waiting), "n"], ["served", (r) => whole(r[1].acquired), "n"], ["timed out", (r) => whole(r[1].timeouts), "n"], ["refused", (r) => whole(r[1].rejected), "n"], ["wait p50", (r) => ms(r[1].wait_p50_ms), "n"], ["p95", (r) => ms(r[1].wait_p95_ms), "n"], ["p99", (r) => ms(r[1].wait_p99_ms), "n"]], rows, "The pool is not open.")));
        drawn.draw();
      },
    };
  },
  live() {
    const sessions = el("div"); const locks = el("div");
    const branch = (node) => el("li", {}, el("code", {}, `${node.pid} ${node.user || ""} ${node.application || ""}`), ` ${node.state || ""} ${node.waited ? `waits ${seconds(node.waited)} for ${node.waits_for || "a lock"}` : node.since ? `since ${seconds(node.since)}` : ""} `, el("code", {}, node.query || ""), node.blocks && node.blocks.length ? el("ul", { class: "tree" }, node.blocks.map(branch)) : null);
    return {
      node: [el("h1", {}, "Live"), locks, sessions],
      async update() {
        const found = await ask("activity");
        if (found.unavailable) { sessions.replaceChildren(card("Sessions", missing(found))); locks.replaceChildren(); return; }
        locks.replaceChildren(card("Who blocks whom", found.locks.length ? el("ul", { class: "tree" }, found.locks.map(branch)) : soft("Nobody waits for a lock.")));
        sessions.replaceChildren(card(`Sessions (${found.sessions.length})`, table([["pid", (r) => r.pid, "n"], ["application", (r) => r.application || "–"], ["user", (r) => r.user || "–"], ["state", (r) => r.state || "–"], ["since", (r) => seconds(r.since), "n"], ["waits for", (r) => r.wait || "–"], ["query", (r) => el("code", {}, r.query || "")]], found.sessions, "No other session.")));
      },
    };
  },
  queries() {
    const body = el("div"); let sort = "total"; let text = "";
    const update = async () => {
      const found = await ask(`queries?sort=${sort}&limit=200&text=${encodeURIComponent(text)}`);
      body.replaceChildren(missing(found) || card(`${whole(found.shown)} of ${whole(found.matching)} statements, ${found.since ? `since ${moment(found.since)}` : "since the last reset"}`, queryTable(found, (by) => { sort = by; pick.value = by; update(); })));
    };
    const pick = el("select", { id: "sort", onchange: (event) => { sort = event.target.value; update(); } }, [["total", "total time"], ["mean", "mean time"], ["calls", "calls"], ["io", "blocks read"], ["wal", "WAL"], ["temp", "temporary blocks"], ["variance", "variance"]].map(([value, title]) => el("option", { value }, title)));
    const search = el("input", { id: "text", type: "search", placeholder: "trades", oninput: (event) => { text = event.target.value; update(); } });
    return { node: [el("h1", {}, "Queries"), el("div", { class: "tools" }, el("label", {}, "Most by ", pick), el("label", {}, "Containing ", search)), body], update };
  },
  query(id) {
    const body = el("div"); let shown = "";
    return {
      node: [el("h1", {}, "Query"), body],
      async update() {
        const found = await ask(`query?id=${encodeURIComponent(id)}`);
        const text = JSON.stringify(found);
        if (text === shown) return; // a plan that somebody reads is not drawn anew
        shown = text;
        if (found.unavailable) { body.replaceChildren(missing(found)); return; }
        const history = found.history || [];
        const trend = card("Calls and mean time, as this page saw them", history.length ? table([["until", (r) => clock(r.at)], ["calls", (r) => whole(r.calls), "n"], ["mean", (r) => ms(r.mean_ms), "n"]], history.slice(-12).reverse(), "") : soft("Nothing seen yet: figures come while the page is open."), history.length > 1 ? spark(history.map((r) => r.calls)) : null);
        body.replaceChildren(
          card("Statement", el("pre", {}, found.query), soft(`queryid ${found.id}`)),
          el("p"),
          numbers([["calls", whole(found.calls)], ["total", ms(found.total_ms)], ["mean", ms(found.mean_ms)], ["rows a call", found.rows_per_call === null ? "–" : found.rows_per_call.toFixed(1)], ["found in cache", percent(found.hit)]]),
          el("div", { class: "grid" }, trend, card("Who calls it when it is slow", table([["caller", (r) => el("code", {}, r.caller || "–")], ["route", (r) => r.route || "–"], ["lane", (r) => r.lane || "–"], ["times", (r) => whole(r.count), "n"], ["mean", (r) => ms(r.mean_ms), "n"]], found.callers || [], found.callers_missing || "Not in the slow-query log."))),
          card("Plan", plan(found)),
        );
      },
    };
  },
  slow() {
    const body = el("div");
    return {
      node: [el("h1", {}, "Slow log"), body],
      async update() {
        const found = await ask("slow");
        if (found.unavailable) { body.replaceChildren(card(null, missing(found))); return; }
        body.replaceChildren(
          card("The last 24 hours, by statement", table([["times", (r) => whole(r.count), "n"], ["mean", (r) => ms(r.mean_ms), "n"], ["longest", (r) => ms(r.max_ms), "n"], ["last", (r) => moment(r.last)], ["by hour", (r) => spark(r.trend || [])], ["statement", (r) => (r.id ? el("a", { href: `#/query/${encodeURIComponent(r.id)}` }, el("code", {}, r.query)) : el("code", {}, r.query))]], found.grouped, "No slow statement in 24 hours.")),
          el("p"),
          card("The latest", table([["when", (r) => moment(r.at)], ["took", (r) => ms(r.duration_ms), "n"], ["lane", (r) => r.lane || "–"], ["outcome", (r) => r.outcome || "–"], ["caller", (r) => el("code", {}, r.caller || "–")], ["route", (r) => r.route || "–"], ["statement", (r) => el("code", {}, r.query)]], found.latest, "None.")),
        );
      },
    };
  },
  findings() {
    const body = el("div");
    return {
      node: [el("h1", {}, "Findings"), body],
      async update() {
        const found = await ask("findings");
        const unseen = found.missing || [];
        body.replaceChildren(
          card("magnus check", missing(found) || table([["", (r) => el("span", { class: r.severity === "error" ? "error-text" : "warning-text" }, r.severity)], ["code", (r) => r.code], ["object", (r) => el("code", {}, r.object || "–")], ["evidence", (r) => r.evidence], ["what to do", (r) => el("code", {}, r.fix || "–")]], found.rows, `Nothing found: ${found.summary ? found.summary.ok : 0} checks are fine.`)),
          unseen.length ? el("p") : "",
          unseen.length ? card("Could not be seen", table([["code", (r) => r.code], ["why, and what would show it", (r) => r.why]], unseen, "")) : "",
        );
      },
    };
  },
  events() {
    const body = el("div");
    return {
      node: [el("h1", {}, "Events"), body],
      update() {
        const of = (...names) => known.events.filter((event) => names.includes(event.name)).length;
        const counts = numbers([["repeated", whole(of("database_retry"))], ["outages", whole(of("database_health_check_failed"))], ["leaks", whole(of("connection_leak_suspected")), of("connection_leak_suspected") ? "warning-text" : ""], ["outcome unknown", whole(of("database_outcome_unknown")), of("database_outcome_unknown") ? "error-text" : ""]]);
        body.replaceChildren(counts, card("The last 200", table([["when", (r) => clock(r.at)], ["", (r) => el("span", { class: r.level === "error" ? "error-text" : r.level === "warning" ? "warning-text" : "soft" }, r.level)], ["event", (r) => r.name], ["data", (r) => el("code", {}, Object.entries(r.fields).map(([k, v]) => `${k}=${typeof v === "object" ? JSON.stringify(v) : v}`).join("  "))]], [...known.events].reverse(), "Nothing has happened.")));
      },
    };
  },
};

function queryTable(found, by) {
  return table([
    ["total", (r) => ms(r.total_ms), "n", () => by("total")],
    ["share", (r) => [el("span", { class: "meter", role: "presentation", "data-share": r.share }), " ", percent(r.share)], "bar"],
    ["calls", (r) => whole(r.calls), "n", () => by("calls")],
    ["mean", (r) => ms(r.mean_ms), "n", () => by("mean")],
    ["rows", (r) => whole(r.rows), "n"],
    ["cache", (r) => percent(r.hit), "n"],
    ["temp", (r) => bytes(r.temp_bytes), "n", () => by("temp")],
    ["calls over time", (r) => spark(r.spark || [])],
    ["statement", (r) => el("a", { href: `#/query/${encodeURIComponent(r.id)}` }, el("code", {}, r.query))],
  ], found.rows, "No statement yet.");
}

function plan(found) {
  if (!found.plan) return soft(found.plan_missing || "No plan is kept for this statement.");
  const frame = el("iframe", { src: "plan.html", title: "Plan of the statement, as a tree" });
  window.addEventListener("message", (event) => {
    if (event.origin === window.location.origin && event.source === frame.contentWindow && event.data === "plan-ready") frame.contentWindow.postMessage({ plan: found.plan, query: found.query }, window.location.origin);
  });
  return frame;
}

// --- the loop

function show() {
  const [page, argument] = location.hash.replace(/^#\//, "").split("/");
  const name = pages[page] ? page : "overview";
  document.getElementById("nav").replaceChildren(...PAGES.map(([key, title]) => el("a", { href: `#/${key}`, "aria-current": key === name || (key === "queries" && name === "query") ? "page" : undefined }, title)));
  const made = pages[name](argument === undefined ? undefined : decodeURIComponent(argument));
  view = made;
  document.getElementById("main").replaceChildren(...made.node.filter(Boolean));
  document.title = `${PAGES.find(([key]) => key === name)?.[1] || "Query"} · Magnus`;
}

function say(text, kind) {
  const state = document.getElementById("state");
  state.textContent = text;
  state.className = kind || "";
}

function askForToken() {
  clearTimeout(timer);
  view = null;
  const field = el("input", { type: "password", id: "token", autocomplete: "off", required: true });
  const form = el("form", { class: "token card", onsubmit: (event) => { event.preventDefault(); token = field.value; sessionStorage.setItem("magnus-token", token); tick(); } }, el("label", { for: "token" }, "Token of this dashboard"), field, el("button", { type: "submit" }, "Show"));
  document.getElementById("main").replaceChildren(form);
  say(token ? "That token is not right." : "", "error-text");
  field.focus();
}

async function tick() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    await refresh();
    document.getElementById("title").textContent = known.last.title;
    if (!view) show();
    const current = view;
    await current.update();
    for (const meter of document.querySelectorAll(".meter")) meter.style.width = `${Math.max(2, 60 * Number(meter.dataset.share))}px`;
    say(`${new Date().toLocaleTimeString()}, every 2 s`);
  } catch (error) {
    if (error instanceof NeedsToken) { askForToken(); return; }
    say(`No answer (${error.message}); trying on`, "error-text");
  }
  timer = setTimeout(tick, EVERY);
}

window.addEventListener("hashchange", () => { if (known.last) { show(); document.getElementById("main").focus({ preventScroll: true }); scrollTo(0, 0); tick(); } });
document.addEventListener("visibilitychange", () => { if (!document.hidden) tick(); });
window.addEventListener("resize", () => { if (view && known.last) view.update(); });
tick();
