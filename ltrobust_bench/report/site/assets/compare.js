"use strict";

// Entries of one board beside each other. The first is what the others are compared with.
addEventListener("DOMContentLoaded", () => {
  const { element, shape } = ltbench;
  const form = document.getElementById("choice");
  const { board: boards, add } = form.elements;
  const list = document.getElementById("entries");
  const output = document.getElementById("comparison");
  const bars = document.getElementById("bars");
  const loaded = new Map();
  const LEVEL = 0.05;
  let data = null, wanted = [];

  globalThis.ltbenchBoard = (found) => loaded.set(found.slug, found);

  /** The board's numbers: a script, since a page on a disk may load nothing else. */
  function load(slug) {
    return new Promise((resolve, reject) => {
      if (loaded.has(slug)) return resolve(loaded.get(slug));
      const script = element("script", { src: `data/${encodeURIComponent(slug)}.js` });
      script.addEventListener("load", () => resolve(loaded.get(slug)));
      script.addEventListener("error", () => reject(new Error(slug)));
      document.head.append(script);
    });
  }

  /** Holm's step-down correction. */
  function holm(values) {
    const order = values.map((_, i) => i).sort((a, b) => values[a] - values[b]);
    const corrected = [];
    let least = 0;
    order.forEach((i, place) => {
      least = Math.max(least, Math.min(1, values[i] * (values.length - place)));
      corrected[i] = least;
    });
    return corrected;
  }

  /** What the paired test says of the first entry and each of the others, in a group of classes. */
  function tests(chosen, group) {
    const pairs = data.pairs[group], count = data.entries.length;
    const found = chosen.slice(1).map((other) => {
      const [i, j] = [chosen[0], other].sort((a, b) => a - b);
      const at = (i * (2 * count - i - 1)) / 2 + (j - i - 1);
      const sign = i === chosen[0] ? 1 : -1;
      const difference = pairs.difference[at] === null ? null : sign * pairs.difference[at];
      return { difference, half: pairs.half[at], p: pairs.p[at], seeds: pairs.seeds[at] };
    });
    const corrected = holm(found.map((test) => test.p));
    return found.map((test, i) => ({ ...test, holm: corrected[i] }));
  }

  function verdict(test) {
    if (!test.seeds) return "no seed in common";
    const apart = test.holm < LEVEL && Math.abs(test.difference) > test.half;
    return apart ? (test.difference > 0 ? "better" : "worse") : "not resolved";
  }

  const percent = (value) => (value === null ? "–" : value.toFixed(1));
  const points = (value) => (value === null ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(1));
  const small = (value) => (value === 0 ? "0" : value < 0.001 ? value.toExponential(1) : value.toPrecision(2));
  const title = ({ title, label }) => (label.toLowerCase().startsWith(title.toLowerCase()) ? label.replace(label.slice(0, title.length), title) : `${title} (${label})`);
  const key = (i) => element("span", { class: `key e${i % 7}` });

  function table(caption, heads, rows) {
    const head = heads.map((text, i) => element("th", { scope: "col", class: i ? "n" : null }, text));
    const body = rows.map(([first, ...cells]) =>
      element("tr", {}, element("th", { scope: "row" }, ...[first].flat()), ...cells.map((text) => element("td", { class: "n" }, text))));
    const made = element("table", {}, element("caption", {}, caption), element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
    return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption }, made);
  }

  const PARTS = { balanced: "All", head: "Head", medium: "Medium", tail: "Tail", worst_tenth: "Worst 10 %" };

  function accuracies(entries, kind, caption) {
    return table(caption, ["Accuracy (%)", ...Object.values(PARTS)], entries.map((entry, i) => [
      [key(i), " ", title(entry)], ...Object.keys(PARTS).map((part) => percent(entry[kind][part]))]));
  }

  function differences(chosen, entries) {
    const found = Object.fromEntries(Object.keys(data.pairs).map((group) => [group, tests(chosen, group)]));
    return entries.slice(1).map((entry, i) =>
      table(`${title(entries[0])} minus ${title(entry)}`, ["Classes", "Difference", "95 % interval", "p", "p (Holm)", "Seeds", "The data say"],
        Object.entries(found).map(([group, own]) => {
          const test = own[i], none = test.difference === null;
          const ends = none ? "–" : `${points(test.difference - test.half)} to ${points(test.difference + test.half)}`;
          return [group, points(test.difference), ends, none ? "–" : small(test.p), none ? "–" : small(test.holm), `${test.seeds}`, verdict(test)];
        })));
  }

  /** Worst-case accuracy of every class, the entries' bars side by side. */
  function draw(svg, entries) {
    const width = 860, height = 260, left = 34, top = 22, bottom = 38, count = data.classes.length;
    const step = (width - left - 4) / count, gap = 0.14 * step, bar = (step - 2 * gap) / entries.length;
    const y = (value) => top + (height - top - bottom) * (1 - value / 100);
    const put = (tag, attributes, ...children) => svg.append(shape(svg, tag, attributes, ...children));
    svg.replaceChildren();
    for (const value of [0, 25, 50, 75, 100]) {
      put("line", { class: "grid", x1: left, x2: width - 4, y1: y(value), y2: y(value) });
      put("text", { class: "tick end", x: left - 5, y: y(value) + 3.5 }, `${value}`);
    }
    let start = 0;
    for (const [group, members] of Object.entries(data.groups)) {
      put("text", { class: "tick", x: left + (start + members / 2) * step, y: 13 }, group);
      if (start) put("line", { class: "split", x1: left + start * step, x2: left + start * step, y1: 4, y2: y(0) });
      start += members;
    }
    const every = Math.ceil(count / 20);
    data.classes.forEach((label, place) => {
      const x = left + place * step + gap;
      entries.forEach((entry, i) => {
        const value = entry.robust.classes[place];
        const told = `class ${label}, ${data.images[place]} training images, ${title(entry)}: ${percent(value)} %`;
        const rect = { class: `e${i % 7}`, x: x + i * bar, width: 0.9 * bar, y: y(value), height: y(0) - y(value) };
        put("rect", rect, shape(svg, "title", {}, told));
      });
      if (place % every) return;
      put("text", { class: "tick", x: left + (place + 0.5) * step, y: y(0) + 15 }, `${label}`);
      put("text", { class: "tick quiet", x: left + (place + 0.5) * step, y: y(0) + 29 }, `${data.images[place]}`);
    });
  }

  function classes(entries) {
    const rows = data.classes.map((label, place) => [
      `${label}`, `${data.images[place]}`, ...entries.map((entry) => percent(entry.robust.classes[place]))]);
    const numbers = table("Worst case of every class (%)", ["Class", "Training images", ...entries.map(title)], rows);
    return element("details", {}, element("summary", {}, "Numbers of the classes"), numbers);
  }

  function choose() {
    const chosen = wanted.map((label) => data.entries.findIndex((entry) => entry.label === label)).filter((i) => i >= 0);
    const entries = chosen.map((i) => data.entries[i]);
    list.replaceChildren(...entries.map((entry, i) => {
      const button = element("button", { type: "button", "aria-label": `Leave out ${entry.label}` }, "×");
      button.addEventListener("click", () => change(wanted.filter((label) => label !== entry.label)));
      return element("li", {}, key(i), " ", element("a", { href: entry.page }, title(entry)), ` ${entry.source} `, button);
    }));
    const rest = data.entries.filter((entry) => !wanted.includes(entry.label));
    add.replaceChildren(element("option", { value: "" }, "choose"), ...rest.map((entry) => element("option", { value: entry.label }, title(entry))));
    const missing = wanted.filter((label) => !data.entries.some((entry) => entry.label === label));
    bars.hidden = !entries.length;
    output.replaceChildren(...missing.map((label) => element("p", { class: "warning" }, `${label} is not on this board.`)));
    if (entries.length) {
      draw(bars.querySelector("svg"), entries);
      const both = ["robust", "clean"].map((kind) => accuracies(entries, kind, kind === "clean" ? "Clean" : "Robust: worst case of all attacks"));
      output.append(element("div", { class: "both" }, ...both));
      if (entries.length > 1) output.append(element("h2", {}, "Differences"), element("div", { class: "both" }, ...differences(chosen, entries)));
      output.append(classes(entries));
    }
    if (entries.length < 2) output.prepend(element("p", {}, "Choose two entries or more; the first is what the others are compared with."));
  }

  function change(labels, step = true) {
    wanted = labels;
    ltbench.writeAddress(boards.value, new URLSearchParams(wanted.map((label) => ["with", label])), step);
    choose();
  }

  async function read() {
    const { name, choices } = ltbench.readAddress();
    if ([...boards.options].some((option) => option.value === name)) boards.value = name;
    wanted = [...new Set(choices.getAll("with"))];
    try {
      data = await load(boards.value);
    } catch {
      output.replaceChildren(element("p", { class: "warning" }, "The numbers of this board could not be read; are they beside this page, in the folder data?"));
      return;
    }
    choose();
  }

  boards.addEventListener("change", () => {
    ltbench.writeAddress(boards.value, new URLSearchParams(), true);
    read();
  });
  add.addEventListener("change", () => add.value && change([...wanted, add.value]));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  addEventListener("hashchange", read);
  read();
});
