(() => {
  "use strict";
  // Everything that a run says is put in as text, never as markup.
  const EVERY = 1000; // milliseconds between questions
  const SHOWN = 100; // requests shown at once; search looks through all that are kept
  const byId = (id) => document.getElementById(id);
  const rows = new Map(); // by number: {row, text, element}
  let last = 0;
  let over = false;

  function element(name, text = "", className = "") {
    const made = document.createElement(name);
    if (text !== "") made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function svg(name, attributes) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  const number = (value, digits = 6) => value === null || value === undefined ? "–"
    : Number(value).toLocaleString("en-US", { maximumSignificantDigits: Math.abs(value) >= 1e6 ? 21 : digits });
  const set = (id, text) => { const place = byId(id); if (place.textContent !== text) place.textContent = text; };
  const status = (name) => /^[a-z_]+$/.test(name) ? name : "pending";

  function duration(seconds) {
    if (seconds === null || seconds === undefined) return "–";
    const whole = Math.round(seconds), hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
    return hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
  }

  // --- figures ------------------------------------------------------------------------------------------

  function tiles(now, latency) {
    const failed = now.failures.reduce((sum, [, count]) => sum + count, 0);
    const pairs = [
      ["Rows done", number(now.done), now.total ? `of ${number(now.total)}` : ""],
      ["Rows per second", number(now.rate, 3), now.eta === null ? "" : `${duration(now.eta)} left`],
      ["Failed", number(failed), ""],
      ["Credits", number(now.credits, 4), now.credits_usd ? `${number(now.credits_usd, 4)} USD` : ""],
      ["Tokens", number(now.tokens), now.cached_tokens ? `${number(now.cached_tokens)} from a cache` : ""],
      ["Requests", number(now.requests), `${number(now.attempts)} attempts`],
      ["In flight", number(now.in_flight), now.ceiling ? `ceiling ${number(now.ceiling)}` : ""],
      ["Latency", latency ? `${number(latency.p50, 3)} ms` : "–", latency ? `95 of 100 within ${number(latency.p95, 3)} ms` : ""],
    ];
    const place = byId("tiles");
    pairs.forEach(([label, value, note], index) => {
      let tile = place.children[index];
      if (!tile) {
        tile = element("div", "", "tile");
        const told = element("dd");
        told.append(element("span", "", "big"), element("br"), element("span", "", "soft small"));
        tile.append(element("dt", label), told);
        place.append(tile);
      }
      const [big, , small] = tile.lastChild.children;
      if (big.textContent !== value) big.textContent = value;
      if (small.textContent !== note) small.textContent = note;
    });
  }

  function statuses(steps) {
    byId("statuses-section").hidden = !steps.length;
    byId("statuses").replaceChildren(...steps.map(([step, counts]) => {
      const whole = counts.reduce((sum, [, count]) => sum + count, 0);
      const block = element("div"), bar = svg("svg", { class: "bar", role: "img", "aria-label": `Rows of step ${step} by status` });
      const legend = element("ul", "", "legend");
      let at = 0;
      for (const [name, count] of counts) {
        if (!count) continue;
        const width = 100 * count / whole;
        bar.append(svg("rect", { class: `f-${status(name)}`, x: `${at}%`, y: 0, width: `${width}%`, height: "100%" }));
        at += width;
        const item = element("li"), key = svg("svg", { "aria-hidden": "true" });
        key.append(svg("rect", { class: `f-${status(name)}`, width: 10, height: 10 }));
        item.append(key, `${name} ${number(count)}`);
        legend.append(item);
      }
      block.append(element("h3", step), bar, legend);
      return block;
    }));
  }

  function pace(now, history, models) {
    const told = [
      ["Bound by", now.bound_by || "nothing so far"],
      ["Ceiling", now.ceiling ? `${number(now.ceiling)} requests at once` : "–"],
      ["Pause", now.pause > 0 ? `${duration(now.pause)}` : "none"],
      ["Found out", now.found || "–"],
      ["Waits for", now.waiting_for || "–"],
      ["Budget left", now.budget_left.map(([name, left]) => `${number(left)} ${name}`).join(", ") || "no budget"],
      ["Ledger", now.commit_ms === null ? "–" : `${number(now.commits)} commits, ${number(now.commit_ms, 3)} ms each`],
      ["Models, lately", models.map(([name, count]) => `${name} (${number(count)})`).join(", ") || "–"],
      ["So far", duration(now.elapsed)],
    ];
    const list = byId("pace");
    told.forEach(([name, text], index) => {
      if (!list.children[2 * index]) list.append(element("dt", name), element("dd"));
      const place = list.children[2 * index + 1];
      if (place.textContent !== text) place.textContent = text;
    });
    const most = Math.max(...history.rate, 0), end = Math.max(...history.at, 1);
    set("rate-most", most ? `${number(most, 3)} at most` : "");
    const points = history.at.map((at, index) => `${600 * at / end},${98 - 94 * history.rate[index] / (most || 1)}`);
    byId("rate").replaceChildren(svg("polyline", { points: points.join(" ") }));
  }

  function causes(failures, retries) {
    const codes = [...new Set([...failures, ...retries].map(([code]) => code))];
    const failed = new Map(failures), again = new Map(retries);
    byId("causes-section").hidden = !codes.length;
    byId("causes").replaceChildren(...codes.map((code) => {
      const line = element("tr");
      line.append(element("td", code), element("td", number(failed.get(code) || 0), "n"), element("td", number(again.get(code) || 0), "n"));
      return line;
    }));
  }

  // --- requests -----------------------------------------------------------------------------------------

  function drawn(row) {
    const made = element("article", "", "sample"), head = element("p", "", "head");
    head.append(element("span", row.kind, `chip c-${status(row.kind)}`), ` ${row.model}`);
    const facts = [`${number(row.tokens)} tokens`, `${number(row.credits, 4)} credits`, `${number(row.latency_ms, 3)} ms`];
    head.append(row.kind === "answered" ? ` ${facts.join(", ")} ` : ` ${number(row.attempts)} attempts `);
    if (row.request_id) head.append(element("code", row.request_id, "id"));
    const asked = element("details"), summary = element("summary", "Prompt");
    asked.append(summary, element("p", row.prompt, "text"));
    made.append(head, element("p", row.error || row.answer || "no text", "text"), asked);
    return made;
  }

  function take(found, kept) {
    for (const row of found) {
      const text = Object.values(row).join("\n").toLowerCase();
      rows.set(row.n, { row, text, element: null });
    }
    for (const kind of ["answered", "failed"]) {
      const numbers = [...rows.keys()].filter((n) => rows.get(n).row.kind === kind).sort((a, b) => b - a);
      for (const n of numbers.slice(kept)) { rows.get(n).element?.remove(); rows.delete(n); }
    }
  }

  function list() {
    const wanted = byId("search").value.trim().toLowerCase(), kind = byId("kind").value;
    const matching = [...rows.values()]
      .filter((kept) => (!wanted || kept.text.includes(wanted)) && (!kind || kept.row.kind === kind))
      .sort((a, b) => b.row.n - a.row.n);
    const shown = new Set(matching.slice(0, SHOWN));
    const place = byId("list");
    for (const kept of rows.values()) if (!shown.has(kept) && kept.element) { kept.element.remove(); kept.element = null; }
    let before = null; // the element that follows
    for (const kept of [...shown].reverse()) {
      kept.element ??= drawn(kept.row);
      if (kept.element.nextElementSibling !== before || kept.element.parentNode !== place) place.insertBefore(kept.element, before);
      before = kept.element;
    }
    byId("none").hidden = rows.size > 0;
    const narrowed = wanted || kind;
    set("found", narrowed ? `${number(matching.length)} of ${number(rows.size)} match` : "");
  }

  // --- asking -------------------------------------------------------------------------------------------

  function show(state) {
    const names = { none: "not begun", running: "running", lost: "not heard of", ended: "ended" };
    const name = state.output.split("/").pop();
    if (document.title !== `${name}: live`) document.title = `${name}: live`;
    set("output", name);
    set("standing", state.standing === "running" && state.stopping ? "stopping" : names[state.standing]);
    byId("standing").className = `badge ${state.standing === "running" ? "good" : "plain"}`;
    set("said", state.said);
    const now = state.figures;
    byId("stop").hidden = !state.mine || state.standing === "ended";
    byId("stop").disabled = state.stopping;
    if (!state.mine && state.standing === "running") set("stop-said", "Started elsewhere: stop it there, with Ctrl-C.");
    if (now) {
      set("phase", now.phase);
      const bar = byId("progress");
      if (now.total) { bar.max = now.total; bar.value = now.done; } else if (state.standing === "ended") { bar.max = 1; bar.value = 1; }
      tiles(now, state.latency);
      statuses(now.steps);
      pace(now, state.history, state.models);
      causes(now.failures, now.retries);
    }
    if (state.rows.length) take(state.rows, state.kept);
    last = state.last;
    list();
    over = state.mine && state.standing === "ended";
  }

  async function ask() {
    try {
      const response = await fetch(`state?after=${last}`, { cache: "no-store" });
      if (!response.ok) throw new Error(String(response.status));
      show(await response.json());
    } catch {
      set("standing", "gone");
      byId("standing").className = "badge bad";
      set("said", "The program has ended, or does not answer. What was answered is in its ledger.");
      byId("stop").hidden = true;
    }
    if (!over) setTimeout(ask, EVERY);
  }

  byId("stop").addEventListener("click", async () => {
    byId("stop").disabled = true;
    set("stop-said", "Stopping: nothing more is sent, what is in flight is awaited.");
    try {
      const response = await fetch("stop", { method: "POST" });
      if (!response.ok) set("stop-said", await response.text());
    } catch { set("stop-said", "It has ended already."); }
  });
  byId("search").addEventListener("input", list);
  byId("kind").addEventListener("change", list);
  ask();
})();
