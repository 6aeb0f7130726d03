// Reads the data beside the page and makes time explorable: values under the pointer, a stretch of
// time picked by dragging or with the keyboard, who waited on whom in it, classes on and off.
"use strict";
(function () {
  const island = document.getElementById("data"), home = document.getElementById("explore");
  if (!island || !home) return;
  const data = JSON.parse(island.textContent);
  if (!data.starts.length || !data.classes.length) return;
  const colors = ["var(--blue)", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"];
  const dashes = ["", "7 3", "2 3", "9 3 2 3", "4 2", "1 2"];
  const LEFT = 64, HEIGHT = 130, PANELS = ["waiting", "oldest wait", "KV memory held"];
  const hidden = new Set();
  let W = 860, RIGHT = W - 16, view = [0, data.end], picked = null, cursor = null, dragged = null;

  function text(tag, words, parent) {
    const node = document.createElement(tag);
    node.textContent = words;
    if (parent) parent.appendChild(node);
    return node;
  }
  function shape(tag, attributes, parent) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const name in attributes) node.setAttribute(name, attributes[name]);
    if (parent) parent.appendChild(node);
    return node;
  }
  function span(seconds) {
    const digits = (x) => (x >= 100 ? x.toFixed(0) : x.toPrecision(3));
    if (seconds >= 3600) return digits(seconds / 3600) + " h";
    if (seconds >= 60) return digits(seconds / 60) + " min";
    if (seconds >= 1 || seconds === 0) return digits(seconds) + " s";
    return digits(seconds * 1000) + " ms";
  }
  function count(x) { return x >= 10 ? Math.round(x).toLocaleString("en") : String(Math.round(x * 10) / 10); }

  text("h3", "Look closer", home);
  const tools = text("div", "", home);
  tools.className = "tools";
  const help = text("p", "Point at a time to read it; drag, or use the arrow keys and Shift with them, to pick a stretch: who waited on whom in it stands below. Enter zooms in on it, Escape shows everything.", tools);
  help.id = "explore-help";
  const boxes = text("div", "", tools);
  boxes.setAttribute("role", "group");
  boxes.setAttribute("aria-label", "Classes");
  data.classes.forEach(function (each, row) {
    const label = text("label", "", boxes);
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = true;
    box.addEventListener("change", function () {
      if (box.checked) hidden.delete(row); else hidden.add(row);
      draw();
      tell();
    });
    label.appendChild(box);
    const key = shape("svg", { width: 26, height: 8, "aria-hidden": "true", style: "display:inline;width:26px" }, label);
    shape("path", { d: "M0 4H26", stroke: colors[row % 6], "stroke-width": 3, "stroke-dasharray": dashes[row % 6] }, key);
    label.appendChild(document.createTextNode(" " + each.name));
  });
  const panels = data.pools.some(function (pool) { return Math.max.apply(null, pool.kv) > 0; }) ? 3 : 2;
  const scroll = text("div", "", tools);
  scroll.className = "scroll";
  const plot = shape("svg", { tabindex: 0, role: "application",
    "aria-label": "Waiting over time", "aria-describedby": "explore-help" }, scroll);
  const said = text("output", "", tools);
  said.setAttribute("aria-live", "polite");
  const buttons = text("div", "", tools);
  const zoom = text("button", "Zoom in on it", buttons), reset = text("button", "Show everything", buttons);
  zoom.type = reset.type = "button";
  const blame = text("div", "", tools);
  blame.id = "explore-blame";

  function x(seconds) { return LEFT + (RIGHT - LEFT) * (seconds - view[0]) / (view[1] - view[0]); }
  function time(px) { return Math.min(view[1], Math.max(view[0], view[0] + (view[1] - view[0]) * (px - LEFT) / (RIGHT - LEFT))); }
  function bin(seconds) {
    let low = 0, high = data.starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (data.starts[middle] <= seconds) low = middle; else high = middle - 1;
    }
    return low;
  }
  function lines(panel) {
    if (panel === 2) return data.pools.map(function (pool, row) { return { name: pool.name, values: pool.kv, row: row }; });
    return data.classes.map(function (each, row) {
      return { name: each.name, values: panel ? each.oldest : each.waiting, row: row };
    }).filter(function (line) { return !hidden.has(line.row); });
  }
  function label(panel, value) { return panel === 0 ? count(value) : panel === 1 ? span(value) : (100 * value).toFixed(0) + " %"; }

  // On a narrow screen there is less of it, and what is written stays legible.
  function fit() {
    W = Math.min(860, Math.max(320, scroll.clientWidth || 860));
    RIGHT = W - 16;
    plot.setAttribute("viewBox", "0 0 " + W + " " + (panels * (HEIGHT + 34) + 20));
  }
  function draw() {
    plot.textContent = "";
    const first = bin(view[0]), last = bin(view[1]);
    for (let panel = 0; panel < panels; panel++) {
      const top = panel * (HEIGHT + 34) + 22, foot = top + HEIGHT, all = lines(panel);
      let most = panel === 2 ? 1 : 0;
      all.forEach(function (line) { for (let at = first; at <= last; at++) most = Math.max(most, line.values[at] || 0); });
      most = most || 1;
      shape("text", { x: LEFT, y: top - 8, fill: "var(--fg)", "font-size": 13 }, plot).textContent = PANELS[panel];
      for (let part = 0; part <= 2; part++) {
        const y = foot - HEIGHT * part / 2;
        shape("path", { d: "M" + LEFT + " " + y + "H" + RIGHT, stroke: "var(--edge)" }, plot);
        shape("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end", fill: "var(--fg)", "font-size": 12 }, plot).textContent = label(panel, most * part / 2);
      }
      all.forEach(function (line) {
        let d = "";
        for (let at = first; at <= last; at++) {
          const px = Math.max(LEFT, x(data.starts[at])), y = foot - HEIGHT * Math.min(1, (line.values[at] || 0) / most);
          d += (d ? "L" : "M") + px.toFixed(1) + " " + y.toFixed(1);
        }
        shape("path", { d: d, fill: "none", stroke: colors[line.row % 6], "stroke-width": 2, "stroke-dasharray": dashes[line.row % 6] }, plot);
      });
    }
    const foot = panels * (HEIGHT + 34) - 12;
    const parts = W < 500 ? 2 : 4;
    for (let part = 0; part <= parts; part++) {
      const at = view[0] + (view[1] - view[0]) * part / parts;
      shape("text", { x: x(at), y: foot + 18, "text-anchor": part === parts ? "end" : part ? "middle" : "start", fill: "var(--fg)", "font-size": 12 }, plot).textContent = span(at);
    }
    if (picked) {
      const from = x(Math.max(picked[0], view[0])), to = x(Math.min(picked[1], view[1]));
      if (to > from) shape("rect", { x: from, y: 14, width: to - from, height: foot - 14, fill: "var(--fg)", opacity: 0.12, id: "picked" }, plot);
    }
    if (cursor !== null) shape("path", { d: "M" + x(cursor) + " 14V" + foot, stroke: "var(--fg)", id: "cursor" }, plot);
    zoom.disabled = !picked;
  }

  function tell() {
    if (cursor === null) { said.textContent = ""; return; }
    const at = bin(cursor);
    said.textContent = span(cursor) + ": " + lines(0).map(function (line) {
      return line.name + " " + count(line.values[at] || 0) + " waiting, oldest " + span(data.classes[line.row].oldest[at] || 0);
    }).concat(panels === 3 ? lines(2).map(function (line) { return line.name + " " + label(2, line.values[at] || 0) + " of KV memory"; }) : []).join("; ");
  }

  // What waited within the stretch, by victim and cause; what a mark covers in part counts in part.
  function blamed(from, to) {
    const sums = new Map();
    let before = 0;
    data.marks.forEach(function (mark) {
      const covered = Math.min(to, mark[0]) - Math.max(from, before), length = mark[0] - before;
      if (covered > 0) mark[1].forEach(function (part) {
        const key = part[0] + " " + part[1];
        sums.set(key, (sums.get(key) || 0) + part[2] * covered / length);
      });
      before = mark[0];
    });
    return Array.from(sums, function (entry) {
      const key = entry[0].split(" ");
      return { victim: Number(key[0]), cause: data.causes[Number(key[1])], seconds: entry[1] };
    }).sort(function (a, b) { return a.victim - b.victim || b.seconds - a.seconds; });
  }
  function show() {
    blame.textContent = "";
    const stretch = picked || [data.from, data.end];
    text("h4", "Who waited on whom from " + span(stretch[0]) + " to " + span(stretch[1]), blame);
    const all = blamed(stretch[0], stretch[1]).filter(function (part) { return !hidden.has(part.victim); });
    if (!all.length) { text("p", data.marks.length ? "Nobody waited." : "The attribution is off: nobody knows.", blame); return; }
    const totals = {};
    all.forEach(function (part) { totals[part.victim] = (totals[part.victim] || 0) + part.seconds; });
    const region = text("div", "", blame);
    region.className = "scroll";
    region.tabIndex = 0;
    region.setAttribute("role", "region");
    region.setAttribute("aria-label", "Who waited on whom");
    const table = text("table", "", region);
    table.className = "data";
    const head = text("tr", "", text("thead", "", table)), body = text("tbody", "", table);
    ["who waited", "because of", "for what", "kind", "time", "of its waiting"].forEach(function (words) { text("th", words, head).scope = "col"; });
    all.filter(function (part) { return part.seconds >= 0.005 * totals[part.victim]; }).forEach(function (part) {
      const row = text("tr", "", body);
      text("th", data.classes[part.victim].name, row).scope = "row";
      [part.cause[0] || "–", part.cause[1], part.cause[2], span(part.seconds), (100 * part.seconds / totals[part.victim]).toFixed(0) + " %"]
        .forEach(function (words) { text("td", words, row); });
    });
  }

  function pick(from, to) {
    picked = to > from ? [from, to] : null;
    draw();
    show();
  }
  function look(from, to) { view = to > from ? [from, to] : [0, data.end]; draw(); }
  function at(event) {
    const box = plot.getBoundingClientRect();
    return time((event.clientX - box.left) * W / box.width);
  }
  plot.addEventListener("pointermove", function (event) {
    cursor = at(event);
    if (dragged !== null) picked = [Math.min(dragged, cursor), Math.max(dragged, cursor)];
    draw();
    tell();
  });
  plot.addEventListener("pointerdown", function (event) {
    dragged = at(event);
    plot.setPointerCapture(event.pointerId);
  });
  plot.addEventListener("pointerup", function (event) {
    const now = at(event), from = Math.min(dragged, now), to = Math.max(dragged, now);
    dragged = null;
    pick(from, to - from > (view[1] - view[0]) / 400 ? to : from);
  });
  plot.addEventListener("pointercancel", function () { dragged = null; });
  plot.addEventListener("keydown", function (event) {
    const step = (view[1] - view[0]) / 60, by = { ArrowLeft: -step, ArrowRight: step }[event.key];
    if (by) {
      const old = cursor === null ? view[0] : cursor;
      cursor = Math.min(view[1], Math.max(view[0], old + by));
      if (event.shiftKey) {
        const fixed = picked && (Math.abs(picked[0] - old) < Math.abs(picked[1] - old) ? picked[1] : picked[0]);
        const other = picked ? fixed : old;
        pick(Math.min(other, cursor), Math.max(other, cursor));
      } else draw();
      tell();
    } else if (event.key === "Enter" && picked) look(picked[0], picked[1]);
    else if (event.key === "Escape") { look(0, data.end); pick(0, 0); }
    else return;
    event.preventDefault();
  });
  zoom.addEventListener("click", function () { if (picked) look(picked[0], picked[1]); });
  reset.addEventListener("click", function () { look(0, data.end); pick(0, 0); });
  // From a bad request to its time: the stretch from its arrival to its end.
  document.querySelectorAll("#slowest a[data-from]").forEach(function (link) {
    link.addEventListener("click", function (event) {
      const from = Number(link.dataset.from), to = Number(link.dataset.to), air = (to - from) / 4;
      look(Math.max(0, from - air), Math.min(data.end, to + air));
      cursor = from;
      pick(from, to);
      tell();
      event.preventDefault();
      history.replaceState(null, "", link.getAttribute("href"));
      home.scrollIntoView();
      plot.focus({ preventScroll: true });
    });
  });
  window.addEventListener("resize", function () { fit(); draw(); });
  fit();
  pick(0, 0);
})();
