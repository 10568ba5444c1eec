"use strict";

// Entries of a board as points: any number of the table against any other.
(() => {
  const WIDTH = 860, NARROW = 320, HEIGHT = 460, LEFT = 52, RIGHT = 16, TOP = 14, BOTTOM = 46;
  const LETTER = 6.6, LINE = 14, DOT = 6;

  /** Round steps that cut a range into about five parts. */
  function ticks(low, high) {
    const raw = (high - low) / 5, unit = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((n) => n * unit).find((n) => n >= raw);
    const found = [];
    for (let at = Math.ceil(low / step) * step; at <= high; at += step) found.push(Number(at.toFixed(6)));
    return found;
  }

  function range(values) {
    const low = Math.min(...values), high = Math.max(...values), room = 0.06 * (high - low) || 1;
    return [low - room, high + room];
  }

  /** Points that no other beats in both numbers, from left to right. */
  function front(points) {
    const beats = (a, b) => a.x >= b.x && a.y >= b.y && (a.x > b.x || a.y > b.y);
    return points.filter((p) => !points.some((other) => beats(other, p))).sort((a, b) => a.x - b.x);
  }

  /**
   * Draw the entries.
   * @param svg the drawing, which is emptied
   * @param entries {title, href, ranked, inside, picked, always, values} each; values by column;
   *   always: named even where there is no room
   * @param x, y {name, title} of the columns
   */
  ltbench.scatter = (svg, entries, x, y) => {
    const shape = (tag, attributes, ...children) => ltbench.shape(svg, tag, attributes, ...children);
    const points = entries
      .map((entry) => ({ entry, x: entry.values[x.name], y: entry.values[y.name] }))
      .filter((point) => Number.isFinite(point.x) && Number.isFinite(point.y));
    svg.replaceChildren();
    if (!points.length) return;
    const width = Math.max(NARROW, Math.min(WIDTH, svg.parentElement.clientWidth));
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const [left, right] = range(points.map((p) => p.x)), [low, high] = range(points.map((p) => p.y));
    const across = (value) => LEFT + ((value - left) / (right - left)) * (width - LEFT - RIGHT);
    const up = (value) => HEIGHT - BOTTOM - ((value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);

    for (const value of ticks(left, right)) {
      const at = across(value);
      svg.append(shape("line", { class: "grid", x1: at, x2: at, y1: TOP, y2: HEIGHT - BOTTOM }));
      svg.append(shape("text", { class: "tick", x: at, y: HEIGHT - BOTTOM + 16 }, `${value}`));
    }
    for (const value of ticks(low, high)) {
      const at = up(value);
      svg.append(shape("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: at, y2: at }));
      svg.append(shape("text", { class: "tick end", x: LEFT - 6, y: at + 4 }, `${value}`));
    }
    svg.append(shape("text", { class: "axis", x: (LEFT + width - RIGHT) / 2, y: HEIGHT - 8 }, x.title));
    const middle = (TOP + HEIGHT - BOTTOM) / 2;
    svg.append(shape("text", { class: "axis", transform: `translate(13 ${middle}) rotate(-90)` }, y.title));

    const shown = points.filter((p) => p.entry.inside);
    const best = front(shown.some((p) => p.entry.ranked) ? shown.filter((p) => p.entry.ranked) : shown);
    if (best.length) {
      const corners = best.map((p) => `V${up(p.y)} H${across(p.x)}`).join(" ");
      svg.append(shape("path", { class: "front", d: `M${LEFT} ${up(best[0].y)} ${corners} V${HEIGHT - BOTTOM}` }));
    }

    const label = shape("text", { class: "label hover" });
    const places = (point) => {
      const length = point.entry.title.length * LETTER, x = across(point.x), y = up(point.y) + 4;
      const right = { class: "label", x: x + 9, y, from: x + 9, to: x + 9 + length };
      const left = { class: "label end", x: x - 9, y, from: x - 9 - length, to: x - 9 };
      return right.to < width ? [right, left] : [left];
    };
    // A name stands where it covers no other and no point.
    const taken = points.map((p) => ({ from: across(p.x) - DOT, to: across(p.x) + DOT, y: up(p.y) + 4 }));
    const free = (box) => box.from > LEFT && !taken.some((b) => box.from < b.to && b.from < box.to && Math.abs(b.y - box.y) < LINE);
    const say = (point, target, { class: side, x, y }) => {
      target.textContent = point.entry.title;
      for (const [key, value] of Object.entries({ class: side, x, y })) target.setAttribute(key, value);
    };
    const name = (point, must) => {
      const found = places(point).find(free) || (must && places(point)[0]);
      if (!found) return;
      taken.push(found);
      say(point, svg.appendChild(shape("text")), found);
    };
    const shout = (point) => {
      const [place] = places(point);
      say(point, label, { ...place, class: `${place.class} hover` });
    };
    for (const point of [...points].sort((a, b) => a.entry.picked - b.entry.picked || a.y - b.y)) {
      const { entry } = point, short = (value) => Number(value.toPrecision(3));
      const told = `${entry.title}: ${x.title} ${short(point.x)}, ${y.title} ${short(point.y)}`;
      const look = ["point", entry.ranked ? "ranked" : "", entry.inside ? "" : "dim", entry.picked ? "picked" : ""];
      const circle = shape("circle", { cx: across(point.x), cy: up(point.y), r: entry.picked ? 7 : 5 });
      const link = shape("a", { class: look.filter(Boolean).join(" "), href: entry.href, "aria-label": told });
      link.append(shape("title", {}, told), circle);
      for (const event of ["mouseenter", "focus"]) link.addEventListener(event, () => shout(point));
      for (const event of ["mouseleave", "blur"]) link.addEventListener(event, () => (label.textContent = ""));
      svg.append(link);
    }
    const must = new Set([...points.filter((p) => p.entry.picked), ...best.toReversed(), ...shown.filter((p) => p.entry.always)]);
    for (const point of must) name(point, true);
    for (const point of shown) if (!must.has(point)) name(point, false);
    svg.append(label);
  };
})();
