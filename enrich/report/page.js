(() => {
  "use strict";
  const root = document.documentElement;
  const data = JSON.parse(document.getElementById("charts").textContent);
  const color = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const count = (value) => (value == null ? "–" : value.toLocaleString("en-US", { maximumFractionDigits: value < 10 ? 2 : 0 }));

  function duration(seconds) {
    if (seconds < 60) return `${+seconds.toFixed(2)} s`;
    const minutes = Math.floor(seconds / 60);
    if (minutes < 60) return `${minutes}:${String(Math.round(seconds % 60)).padStart(2, "0")} min`;
    const hours = Math.floor(minutes / 60);
    return hours < 72 ? `${hours}:${String(minutes % 60).padStart(2, "0")} h` : `${(hours / 24).toFixed(1)} d`;
  }

  function milliseconds(value) {
    if (value < 1000) return `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
    return value < 60000 ? `${(value / 1000).toFixed(value < 10000 ? 2 : 1)} s` : duration(value / 1000);
  }

  // --- charts ---------------------------------------------------------------------------------------------

  const INCREMENTS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800];

  function axis(values, extra) {
    return {
      stroke: color("--soft"), font: "12px system-ui, sans-serif", ticks: { show: false },
      grid: { stroke: color("--line"), width: 1 }, values: (_, splits) => splits.map(values), ...extra,
    };
  }

  function options(box, axes, series, extra) {
    return {
      width: Math.max(200, box.clientWidth), height: 180, axes, series, padding: [8, 12, 0, 0],
      cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } }, ...extra,
    };
  }

  function line(label, stroke, fill) {
    return { label, stroke, fill, width: 1.5, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }), value: (_, v) => count(v) };
  }

  function moment(seconds) {
    return `${new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ")} UTC`;
  }

  function breakLines(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = color("--soft");
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
    data.time.breaks.forEach((slice) => {
      const x = plot.valToPos(slice * data.time.width, "x", true);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    });
    ctx.restore();
  }

  function timeChart(box, series, columns) {
    const { width, answers, starts } = data.time;
    const times = answers.map((_, slice) => slice * width).concat(answers.length * width);
    const axes = [axis(duration, { incrs: INCREMENTS, space: 70, size: 28, grid: { show: false } }), axis(count, { size: 46 })];
    const scales = { x: { time: false }, y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } };
    const held = columns.map((values) => values.concat(values.at(-1)));
    const first = { label: "at", value: (_, v) => (v == null ? "–" : moment(starts[Math.min(Math.round(v / width), starts.length - 1)])) };
    return new uPlot(options(box, axes, [first, ...series], { scales, hooks: { draw: [breakLines] } }), [times, ...held], box);
  }

  function percentileLines(plot) {
    const { edges, p50, p95, p99 } = data.latency;
    const place = (value) => {
      const bar = edges.findIndex((edge) => edge > value) - 1;
      return bar < 0 ? 0 : bar - 0.5 + Math.log(value / edges[bar]) / Math.log(edges[bar + 1] / edges[bar]);
    };
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = color("--ink");
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    [["p50", p50, 0], ["p95", p95, 1], ["p99", p99, 2]].forEach(([name, value, level]) => {
      const x = plot.valToPos(place(value), "x", true);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      const left = x > bbox.left + bbox.width - 40 * devicePixelRatio;
      ctx.textAlign = left ? "right" : "left";
      ctx.fillText(name, x + (left ? -4 : 4) * devicePixelRatio, bbox.top + (10 + 13 * level) * devicePixelRatio);
    });
    ctx.restore();
  }

  function latencyChart(box) {
    const { edges, counts } = data.latency;
    const label = (bar) => (Number.isInteger(bar) && edges[bar + 1] ? milliseconds(Math.sqrt(edges[bar] * edges[bar + 1])) : "");
    const between = (_, bar) => (bar == null ? "–" : `${milliseconds(edges[bar])} to ${milliseconds(edges[bar + 1])}`);
    const axes = [axis(label, { space: 76, size: 28, incrs: [1, 2, 3, 4, 5, 8, 10, 15, 20, 30, 40], grid: { show: false } }), axis(count, { size: 52 })];
    const bars = { label: "answers", stroke: color("--accent"), fill: color("--accent-soft"), width: 1, points: { show: false }, paths: uPlot.paths.bars({ size: [0.9, 60] }), value: (_, v) => count(v) };
    const scales = { x: { time: false, range: [-0.6, counts.length - 0.4] }, y: { range: (_, low, high) => [0, high * 1.12] } };
    const x = counts.map((_, bar) => bar);
    return new uPlot(options(box, axes, [{ label: "took", value: between }, bars], { scales, hooks: { draw: [percentileLines] } }), [x, counts], box);
  }

  const charts = {
    throughput: (box) => timeChart(box, [line("answers/s", color("--accent"), color("--accent-soft")), line("failed attempts/s", color("--bad"), color("--bad-soft"))], [data.time.answers, data.time.failures]),
    inflight: (box) => timeChart(box, [line("in flight", color("--accent"), color("--accent-soft"))], [data.time.in_flight]),
    credits: (box) => timeChart(box, [line("credits", color("--accent"), color("--accent-soft"))], [data.time.credits]),
    latency: (box) => data.latency && latencyChart(box),
  };
  let plots = [];

  function draw() {
    plots.forEach((plot) => plot.destroy());
    plots = [...document.querySelectorAll("[data-chart]")].map((box) => charts[box.dataset.chart](box)).filter(Boolean);
  }

  function fit() {
    plots.forEach((plot) => {
      const width = Math.max(200, plot.root.parentNode.clientWidth);
      if (width !== plot.width) plot.setSize({ width, height: plot.height });
    });
  }

  draw();
  new ResizeObserver(fit).observe(document.body);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("beforeprint", () => { root.classList.add("printing"); draw(); });
  addEventListener("afterprint", () => { root.classList.remove("printing"); draw(); });

  // --- downloads ------------------------------------------------------------------------------------------

  const FIELDS = ["row", "step", "status", "code", "message", "attempts", "request_id", "prompt", "answer"];

  function cell(item, name) {
    const found = item.querySelector(name === "request_id" ? "[data-copy]" : `[data-field="${name}"]`);
    const text = !found ? "" : name === "request_id" ? found.dataset.copy : name === "row" ? found.textContent.replaceAll(",", "") : found.textContent;
    const harmless = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text; // no spreadsheet takes it for a formula
    return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
  }

  document.querySelectorAll("[data-csv]").forEach((button) => button.addEventListener("click", () => {
    const name = button.dataset.csv;
    const items = [...document.querySelectorAll(`[data-list="${name}"] [data-item]:not([data-out])`)];
    const lines = [FIELDS.join(","), ...items.map((item) => FIELDS.map((field) => cell(item, field)).join(","))];
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`${lines.join("\r\n")}\r\n`], { type: "text/csv" }));
    link.download = `${name}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    document.getElementById("said").textContent = `${items.length} rows downloaded`;
  }));

  // --- copying --------------------------------------------------------------------------------------------

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy], [data-copy-all]");
    if (!button) return;
    const all = button.dataset.copyAll;
    const ids = all && [...document.querySelectorAll(`[data-list="${all}"] [data-item] [data-copy]`)]
      .filter((other) => !other.closest("[data-item]").hasAttribute("data-out"))
      .map((other) => other.dataset.copy);
    await copy(all ? [...new Set(ids)].join("\n") : button.dataset.copy);
    const label = button.textContent;
    button.textContent = "Copied";
    document.getElementById("said").textContent = all ? `${ids.length} request ids copied` : "Request id copied";
    setTimeout(() => { button.textContent = label; }, 1200);
  });
})();
