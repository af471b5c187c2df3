// Line charts: one SVG each, with a legend that says in numbers what the lines show.

const WIDTH = 320, HEIGHT = 118, LEFT = 4, RIGHT = 316, TOP = 14, BOTTOM = 102;
const SPAN_S = 120, MAX_SERIES = 6;

function roundUp(value, unit) {
  if (!(value > 0)) return 1;
  if (unit === "B") return 2 ** Math.ceil(Math.log2(value));
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((one) => one * power >= value * 0.999) * power;
}

class Chart {
  // top: a fixed upper end of the axis; without one it fits the values.
  constructor(home, { id, title, unit = "", top = null }) {
    this.title = title;
    this.unit = unit;
    this.top = top;
    this.frames = [];
    this.names = [];
    this.cursor = null;
    this.note = make("span");
    this.legend = make("ul", { class: "legend" });
    this.svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, tabindex: "0", role: "img" });
    home.append(make("figure", { id: `chart-${id}` },
      make("figcaption", {}, title, this.note), this.svg, this.legend));
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    for (const name of ["pointerleave", "blur"]) {
      this.svg.addEventListener(name, () => this.show(null));
    }
    this.svg.addEventListener("keydown", (event) => this.press(event));
    this.draw();
  }

  // frames: [{t, values: {name: number or null}}], the newest last; t in seconds.
  update(frames) {
    this.frames = frames;
    for (const { values } of frames) {
      for (const name of Object.keys(values)) {
        if (!this.names.includes(name)) this.names.push(name);
      }
    }
    if (this.cursor !== null) this.cursor = Math.min(this.cursor, frames.length - 1);
    this.draw();
  }

  point(event) {
    if (!this.frames.length) return;
    const box = this.svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * WIDTH;
    const distances = this.frames.map((frame) => Math.abs(this.x(frame.t) - x));
    this.show(distances.indexOf(Math.min(...distances)));
  }

  press(event) {
    const last = this.frames.length - 1, at = this.cursor ?? last;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
    if (event.key === "Escape") this.show(null);
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.show(Math.max(0, Math.min(last, to)));
  }

  show(cursor) {
    this.cursor = cursor;
    this.draw();
  }

  x(t) {
    const age = this.frames[this.frames.length - 1].t - t;
    return RIGHT - age / SPAN_S * (RIGHT - LEFT);
  }

  draw() {
    const names = this.names.slice(0, MAX_SERIES);
    const values = this.frames.flatMap((frame) => names.map((name) => frame.values[name] ?? 0));
    const top = this.top ?? roundUp(Math.max(0, ...values), this.unit);
    const y = (value) => BOTTOM - Math.min(1, value / top) * (BOTTOM - TOP);
    const parts = [0, 0.5, 1].map((part) => make("line", { class: "grid", x1: LEFT, x2: RIGHT,
      y1: y(part * top), y2: y(part * top) }));
    parts.push(make("text", { x: LEFT, y: TOP - 4 }, shown(top, this.unit)));
    parts.push(make("text", { x: LEFT, y: HEIGHT - 4 }, "2 min ago"));
    parts.push(make("text", { x: RIGHT, y: HEIGHT - 4, "text-anchor": "end" }, "now"));
    names.forEach((name, at) => {
      parts.push(make("path", { class: `s${at}`, d: this.path(name, y), "data-series": name }));
    });
    const frame = this.frames[this.cursor ?? this.frames.length - 1];
    if (frame && this.cursor !== null) {
      const x = this.x(frame.t);
      parts.push(make("line", { class: "cursor", x1: x, x2: x, y1: TOP, y2: BOTTOM }));
    }
    this.svg.replaceChildren(...parts);
    this.tell(names, frame);
  }

  tell(names, frame) {
    const lines = names.map((name) => [name, shown(frame?.values[name], this.unit)]);
    this.legend.replaceChildren(...(lines.length
      ? lines.map(([name, text], at) => make("li", { class: `s${at}` }, `${name} `,
        make("b", {}, text)))
      : [make("li", { class: "none" }, "none so far")]));
    const age = frame && this.cursor !== null
      ? Math.round(this.frames[this.frames.length - 1].t - frame.t) : null;
    this.note.textContent = age === null ? "" : `${age} s ago`;
    this.svg.setAttribute("aria-label", [this.title, ...lines.map((line) => line.join(" "))].join(", ")
      + (age === null ? "" : `, ${age} seconds ago`));
  }

  path(name, y) {
    let text = "", isOpen = false;
    for (const { t, values } of this.frames) {
      const value = values[name];
      if (value === null || value === undefined) {
        isOpen = false;
        continue;
      }
      text += `${isOpen ? "L" : "M"}${this.x(t).toFixed(1)} ${y(value).toFixed(1)}`;
      // A value alone between gaps is a dot.
      if (!isOpen) text += "h0.01";
      isOpen = true;
    }
    return text;
  }
}
