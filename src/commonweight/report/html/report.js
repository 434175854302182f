"use strict";
(() => {
  // Everything is drawn from one state and one data island. Names reach the page as text only.
  const tables = JSON.parse(document.getElementById("data").textContent);
  const state = { table: 0, module: 0, quantity: 0, pair: 0, stretch: false, depth: 0, sort: -1, upwards: false, find: "", folded: new Set() };
  const SEQUENTIAL = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];
  const DIVERGING = ["#7f3b08", "#b35806", "#e08214", "#fdb863", "#fee0b6", "#f7f7f7", "#d8daeb", "#b2abd2", "#8073ac", "#542788", "#2d004b"];
  const DASH = "–";
  const MOST_NUMBERED = 12; // footprints beyond which cells show colours only
  const MOST_NAMED = 16; // layers beyond which only some are named
  const MOST_UNFOLDED = 40; // modules beyond which the network is shown folded
  const SIGNED = -0.05; // a quantity that may be negative is drawn from 0 where nothing lies below this
  const LETTER = 6.4; // pixels
  const svgName = "http://www.w3.org/2000/svg";
  const $ = (id) => document.getElementById(id);

  const here = () => tables[state.table];
  const shown = () => here().quantities[state.quantity];
  const find = (key) => here().quantities.find((each) => each.key === key);

  function make(tag, attributes = {}, text = null) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== null) element.textContent = text;
    return element;
  }

  function draw(tag, attributes = {}, text = null) {
    const element = document.createElementNS(svgName, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== null) element.textContent = text;
    return element;
  }

  function number(value, decimals = 3) {
    // As the tables of the run: rounding never turns "almost" into "exactly".
    if (value === null || value === undefined) return DASH;
    const size = Math.abs(value);
    const sign = value < 0 ? "-" : "";
    const rounded = size.toFixed(decimals);
    const step = 10 ** -decimals;
    if (size < 1 && Number(rounded) === 1) return `${value < 0 ? "<" : ">"}${sign}${(1 - step).toFixed(decimals)}`;
    if (size > 0 && Number(rounded) === 0) return `${value < 0 ? ">" : "<"}${sign}${step.toFixed(decimals)}`;
    return sign + rounded;
  }

  const parts = (hex) => [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16));

  function mix(colors, share) {
    const place = Math.min(1, Math.max(0, share)) * (colors.length - 1);
    const first = Math.min(Math.floor(place), colors.length - 2);
    const [a, b] = [parts(colors[first]), parts(colors[first + 1])];
    return a.map((value, i) => Math.round(value + (b[i] - value) * (place - first)));
  }

  function luminance(color) {
    const [r, g, b] = color.map((value) => ((value / 255) <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }

  function place(i, j) {
    // Where the pair of two footprints stands among all pairs.
    const count = here().names.length;
    const [a, b] = i < j ? [i, j] : [j, i];
    return (a * (2 * count - a - 1)) / 2 + (b - a - 1);
  }

  function scale() {
    // The colours and the range of the quantity that is shown.
    const quantity = shown();
    const every = quantity.values.flat().filter((value) => value !== null);
    const isSigned = quantity.range[0] < 0 && extremes(every)[0] < SIGNED;
    let [low, high] = [isSigned ? quantity.range[0] : 0, quantity.range[1]];
    if (state.stretch) {
      const now = quantity.values[state.module].filter((value) => value !== null);
      if (now.length) {
        [low, high] = extremes(now);
        if (isSigned) [low, high] = [-Math.max(-low, high), Math.max(-low, high)];
        if (high - low < 1e-9) [low, high] = [low - 0.01, high + 0.01];
      }
    }
    return { low, high, colors: isSigned ? DIVERGING : SEQUENTIAL };
  }

  function extremes(values) {
    let [low, high] = [Infinity, -Infinity];
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    return [low, high];
  }

  function verdict(module, pair) {
    return here().verdicts ? here().answers[here().verdicts[module][pair]] : "";
  }

  function interval(quantity, module, pair) {
    if (!quantity.low || quantity.low[module][pair] === null) return "";
    return `[${number(quantity.low[module][pair])}, ${number(quantity.high[module][pair])}]`;
  }

  function members(pair) {
    // The two footprints of a pair.
    let left = pair;
    for (let i = 0, count = here().names.length; i < count; i += 1) {
      if (left < count - 1 - i) return [i, i + 1 + left];
      left -= count - 1 - i;
    }
    return [0, 0];
  }

  function told(module, pair) {
    // Everything that is known of a pair in a module, in one line.
    const words = [here().pairs[pair], here().modules[module]];
    for (const quantity of here().quantities) {
      if (quantity.of === "pairs") words.push(`${quantity.title} ${number(quantity.values[module][pair])} ${interval(quantity, module, pair)}`.trim());
      else words.push(`${quantity.title} ${members(pair).map((each) => number(quantity.values[module][each])).join(" and ")}`);
    }
    if (verdict(module, pair)) words.push(`against its null: ${verdict(module, pair)}`);
    return words.join(" · ");
  }

  // The heat map ---------------------------------------------------------------------------------------------------

  let cells = []; // [row][column], the last column a noise ceiling where there is one

  function buildMap() {
    const { names } = here();
    const ceiling = find("noise_ceiling") || find("density");
    const table = make("table", { role: "grid", "aria-labelledby": "overlap-title", class: names.length > MOST_NUMBERED ? "heat small" : "heat" });
    const head = make("tr");
    head.append(make("td", { class: "self" }));
    for (const name of names) {
      const cell = make("th", { scope: "col", title: name });
      cell.append(make("span", {}, name));
      head.append(cell);
    }
    if (ceiling) {
      const cell = make("th", { scope: "col" });
      cell.append(make("span", {}, ceiling.title));
      head.append(cell);
    }
    const body = make("tbody");
    cells = names.map((name, i) => {
      const row = make("tr");
      row.append(make("th", { scope: "row", title: name }, name));
      const made = names.map((_, j) => make("td", { role: "gridcell", tabindex: "-1", class: i === j ? "self" : "" }));
      if (ceiling) made.push(make("td", { role: "gridcell", tabindex: "-1", class: "ceiling" }));
      made.forEach((cell, j) => {
        cell.addEventListener("focus", () => readOut(i, j));
        cell.addEventListener("pointerenter", () => readOut(i, j));
        cell.addEventListener("click", () => choose(i, j));
        cell.addEventListener("keydown", (event) => move(event, i, j));
      });
      row.append(...made);
      body.append(row);
      return made;
    });
    table.append(make("thead"), body);
    table.firstChild.append(head);
    table.addEventListener("pointerleave", () => { $("readout").textContent = told(state.module, state.pair); });
    $("map").replaceChildren(table);
    const [a, b] = members(state.pair);
    cells[a][b].tabIndex = 0;
  }

  function paintMap() {
    const { names } = here();
    const { low, high, colors } = scale();
    const quantity = shown();
    const ceiling = find("noise_ceiling") || find("density");
    const isSmall = names.length > MOST_NUMBERED;
    const decimals = Math.max(...quantity.values[state.module].map((value) => Math.abs(value || 0))) < 0.1 ? 3 : 2;
    cells.forEach((row, i) => row.forEach((cell, j) => {
      if (j === names.length) {
        cell.textContent = number(ceiling.values[state.module][i]);
        cell.setAttribute("aria-label", `${ceiling.title} of ${names[i]}: ${cell.textContent}`);
        return;
      }
      if (i === j) {
        cell.textContent = isSmall ? "" : "·";
        cell.setAttribute("aria-label", `${names[i]} with itself`);
        return;
      }
      const pair = place(i, j);
      const value = quantity.values[state.module][pair];
      const answer = verdict(state.module, pair);
      const isOpen = answer === "inconclusive";
      if (value === null) {
        cell.style.backgroundColor = "";
        cell.style.color = "";
      } else {
        const color = mix(colors, (value - low) / (high - low));
        cell.style.backgroundColor = `rgb(${color.join(" ")})`;
        cell.style.color = luminance(color) > 0.18 ? "#000" : "#fff";
      }
      cell.textContent = isSmall ? "" : number(value, decimals);
      cell.classList.toggle("hatched", isOpen);
      cell.setAttribute("aria-selected", String(pair === state.pair));
      cell.setAttribute("aria-label", `${here().pairs[pair]}: ${number(value, isSmall ? 3 : decimals)}${answer ? `, ${answer}` : ""}`);
    }));
    paintLegend(low, high, colors);
    $("readout").textContent = told(state.module, state.pair);
  }

  function paintLegend(low, high, colors) {
    const title = make("div", {}, shown().title);
    const bar = make("div", { class: "bar" });
    bar.style.background = `linear-gradient(to right, ${colors.join(", ")})`;
    const ends = make("div", { class: "ends" });
    ends.append(make("span", {}, number(low, 2)), make("span", {}, number(high, 2)));
    const keys = [["chosen", "the chosen pair"]];
    if (here().verdicts) keys.unshift(["hatched", "inconclusive"]);
    if (shown().values[state.module].includes(null)) keys.push(["blank", "undefined"]);
    const lines = keys.map(([name, words]) => {
      const line = make("div", { class: "key" });
      line.append(make("i", { class: name }), make("span", {}, words));
      return line;
    });
    $("legend").replaceChildren(title, bar, ends, ...lines);
  }

  function readOut(i, j) {
    const { names } = here();
    if (i !== j && j < names.length) $("readout").textContent = told(state.module, place(i, j));
    else $("readout").textContent = cells[i][j].getAttribute("aria-label");
  }

  function choose(i, j) {
    if (i === j || j >= here().names.length) return;
    state.pair = place(i, j);
    cells.flat().forEach((cell) => { cell.tabIndex = -1; });
    cells[i][j].tabIndex = 0;
    paintMap();
    drawCurve();
    fillTree();
    $("curve-readout").textContent = `The layer curve and the network show ${here().pairs[state.pair]}.`;
  }

  function move(event, i, j) {
    const rows = cells.length;
    const columns = cells[0].length;
    const steps = { ArrowUp: [i - 1, j], ArrowDown: [i + 1, j], ArrowLeft: [i, j - 1], ArrowRight: [i, j + 1], Home: [i, 0], End: [i, columns - 1] };
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      choose(i, j);
    } else if (steps[event.key]) {
      event.preventDefault();
      const [row, column] = steps[event.key];
      const next = cells[Math.min(rows - 1, Math.max(0, row))][Math.min(columns - 1, Math.max(0, column))];
      cells[i][j].tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    }
  }

  // The layer curve ------------------------------------------------------------------------------------------------

  const hasChildren = (module) => here().levels[module + 1] > here().levels[module];

  function cut(depth) {
    // The modules at a depth, and the layers that lie higher.
    return here().levels.map((_, module) => module).filter((module) => here().levels[module] === depth || (here().levels[module] < depth && !hasChildren(module)));
  }

  function drawCurve() {
    const quantity = shown();
    const pair = state.pair;
    const layers = cut(state.depth);
    const names = layers.map((module) => here().modules[module]);
    const second = find({ corrected: "null", raw: "chance" }[quantity.key]);
    const ceiling = quantity.key === "raw" ? find("noise_ceiling") : null;
    const ceilings = ceiling && layers.map((module) => {
      const [a, b] = members(pair).map((each) => ceiling.values[module][each]);
      return a === null || b === null ? null : Math.sqrt(a * b);
    });
    const values = layers.map((module) => quantity.values[module][pair]);
    const [lows, highs] = ["low", "high"].map((end) => quantity[end] && layers.map((module) => quantity[end][module][pair]));
    const others = second && layers.map((module) => second.values[module][pair]);

    const every = [values, lows, highs, others, ceilings].flatMap((each) => each || []).filter((each) => each !== null);
    let [low, high] = [quantity.range[0] < 0 && extremes(every)[0] < SIGNED ? -1 : 0, 1];
    if (state.stretch && every.length) [low, high] = extremes(every);
    if (high - low < 1e-9) [low, high] = [low - 0.01, high + 0.01];

    const width = Math.max(280, $("curve").clientWidth || 720);
    const step = Math.max(1, Math.ceil(layers.length / Math.min(MOST_NAMED, Math.floor(width / 45))));
    const labels = names.map((name) => ending(name));
    const named = labels.filter((_, index) => index % step === 0);
    const below = 18 + 0.72 * LETTER * Math.max(...named.map((name) => name.length));
    const left = Math.max(44, 0.72 * LETTER * labels[0].length);
    const [top, tall] = [12, 240];
    const [right, bottom] = [width - 12, top + tall];
    const x = (index) => (layers.length === 1 ? (left + right) / 2 : left + 8 + (index * (right - left - 16)) / (layers.length - 1));
    const y = (value) => bottom - ((Math.min(high, Math.max(low, value)) - low) / (high - low)) * tall;

    const image = draw("svg", { class: "curve", viewBox: `0 0 ${width} ${bottom + below}`, role: "img" });
    for (let tick = 0; tick <= 4; tick += 1) {
      const value = low + ((high - low) * tick) / 4;
      image.append(draw("line", { class: "axis", x1: left, x2: right, y1: y(value), y2: y(value) }));
      image.append(draw("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, number(value, high - low < 0.1 ? 3 : 2)));
    }
    labels.forEach((label, index) => {
      if (index % step === 0) image.append(draw("text", { transform: `translate(${x(index) + 3} ${bottom + 16}) rotate(-45)`, "text-anchor": "end" }, label));
    });
    if (lows) {
      for (const [from, to] of runs(lows)) {
        const forth = range(from, to).map((index) => `${x(index)} ${y(highs[index])}`);
        const back = range(from, to).reverse().map((index) => `${x(index)} ${y(lows[index])}`);
        image.append(draw("path", { class: "band", d: `M${[...forth, ...back].join("L")}Z` }));
      }
    }
    if (others) image.append(draw("path", { class: "second", d: path(others, x, y) }));
    if (ceilings) image.append(draw("path", { class: "third", d: path(ceilings, x, y) }));
    image.append(draw("path", { class: "line", d: path(values, x, y) }));
    const chosen = layers.indexOf(state.module);
    if (chosen >= 0) image.append(draw("line", { class: "here", x1: x(chosen), x2: x(chosen), y1: top, y2: bottom }));
    values.forEach((value, index) => {
      if (value === null) return;
      const isHollow = verdict(layers[index], pair) && verdict(layers[index], pair) !== "above";
      image.append(draw("circle", { class: isHollow ? "dot hollow" : "dot", cx: x(index), cy: y(value), r: layers.length > 60 ? 2 : 3.4 }));
    });
    const room = layers.length === 1 ? right - left : (right - left - 16) / (layers.length - 1);
    layers.forEach((module, index) => {
      const hit = draw("rect", { class: "hit", x: x(index) - room / 2, y: top, width: room, height: tall });
      hit.addEventListener("pointerenter", () => { $("curve-readout").textContent = told(module, pair); });
      hit.addEventListener("click", () => chooseModule(module));
      image.append(hit);
    });
    const defined = values.filter((value) => value !== null);
    const ends = defined.length ? `from ${number(extremes(defined)[0])} to ${number(extremes(defined)[1])}` : "undefined";
    image.setAttribute("aria-label", `${quantity.title} of ${here().pairs[pair]} in ${layers.length} modules, ${ends}. The table below has every number.`);
    $("curve").replaceChildren(image, keys(quantity, lows, second, ceilings));
    $("depth-title").textContent = `Layer by layer: ${here().pairs[pair]}`;
    $("depth-lead").textContent = `${quantity.title[0].toUpperCase()}${quantity.title.slice(1)}, in the order of the model. A click on a layer shows it in the heat map.`;
  }

  function keys(quantity, lows, second, ceilings) {
    const box = make("p", { class: "keys" });
    const add = (name, words, attributes) => {
      const key = make("span");
      const image = draw("svg", { class: "curve", viewBox: "0 0 32 12", "aria-hidden": "true" });
      image.append(draw(attributes.tag, { class: name, ...attributes.of }));
      key.append(image, document.createTextNode(words));
      box.append(key);
    };
    const line = { tag: "path", of: { d: "M0 6L32 6" } };
    const dot = { tag: "circle", of: { cx: 16, cy: 6, r: 3.4 } };
    add("line", quantity.title, line);
    if (lows) add("band", `95 %, over ${here().seeds > 1 ? "seeds" : "folds"}`, { tag: "rect", of: { width: 32, height: 12 } });
    if (second) add("second", second.title, line);
    if (ceilings) add("third", "noise ceiling of both", line);
    if (here().verdicts) {
      add("dot", "above its null", dot);
      add("dot hollow", "not above, or inconclusive", dot);
    }
    return box;
  }

  const range = (from, to) => Array.from({ length: to - from }, (_, index) => from + index);

  function runs(values) {
    // Stretches without a gap: first place, and the place after the last.
    const found = [];
    values.forEach((value, index) => {
      if (value === null) return;
      if (found.length && found[found.length - 1][1] === index) found[found.length - 1][1] = index + 1;
      else found.push([index, index + 1]);
    });
    return found;
  }

  function path(values, x, y) {
    return runs(values).map(([from, to]) => `M${range(from, to).map((index) => `${x(index)} ${y(values[index])}`).join("L")}`).join("");
  }

  function ending(name) {
    // The last parts of a name, as many as fit.
    const words = name.split(".");
    let kept = words.pop();
    while (words.length && kept.length + words[words.length - 1].length < 20) kept = `${words.pop()}.${kept}`;
    return kept.length > 26 ? `${kept.slice(0, 25)}…` : kept;
  }

  // The network ----------------------------------------------------------------------------------------------------

  function columns() {
    // What the table of the network shows of the chosen pair: title, text and value of a module.
    const [a, b] = members(state.pair);
    const found = [];
    here().quantities.forEach((quantity, index) => {
      if (quantity.of === "pairs") {
        found.push({ title: quantity.title, text: (m) => number(quantity.values[m][state.pair]), value: (m) => quantity.values[m][state.pair], sized: index === 0 });
        if (quantity.low && index === 0) found.push({ title: "95 %", text: (m) => interval(quantity, m, state.pair) || DASH, value: (m) => quantity.low[m][state.pair] });
      } else {
        const both = (m) => [quantity.values[m][a], quantity.values[m][b]];
        found.push({ title: quantity.title, text: (m) => both(m).map((each) => number(each)).join(" / "), value: (m) => (both(m).includes(null) ? null : Math.min(...both(m))) });
      }
    });
    if (here().verdicts) found.push({ title: "against its null", text: (m) => verdict(m, state.pair), value: (m) => verdict(m, state.pair), words: true });
    return found;
  }

  let rows = []; // of the network that are there now, each with its module

  function visible() {
    const { modules, levels } = here();
    const every = modules.map((_, module) => module);
    if (state.find) return every.filter((module) => modules[module].toLowerCase().includes(state.find));
    if (state.sort >= 0) return every.filter((module) => !hasChildren(module));
    let hidden = Infinity;
    return every.filter((module) => {
      if (levels[module] > hidden) return false;
      hidden = state.folded.has(module) ? levels[module] : Infinity;
      return true;
    });
  }

  function fillTree() {
    const found = columns();
    const isFlat = Boolean(state.find) || state.sort >= 0;
    const table = make("table", { class: "tree", role: "treegrid", "aria-labelledby": "network-title" });
    const head = make("tr");
    const titles = ["module", ...found.map((each) => each.title)];
    titles.forEach((title, index) => {
      const cell = make("th", { scope: "col", class: index && found[index - 1].words ? "words" : "" });
      if (state.sort === index && index) cell.setAttribute("aria-sort", state.upwards ? "ascending" : "descending");
      const arrow = state.sort === index && index ? (state.upwards ? " ↑" : " ↓") : "";
      const button = make("button", { type: "button" }, title + arrow);
      button.addEventListener("click", () => sortBy(index));
      cell.append(button);
      head.append(cell);
    });
    let order = visible();
    if (state.sort > 0) {
      const { value } = found[state.sort - 1];
      const way = state.upwards ? 1 : -1;
      order = [...order].sort((one, other) => {
        const [a, b] = [value(one), value(other)];
        if (a === null || b === null) return (a === null) - (b === null);
        return a < b ? -way : a > b ? way : 0;
      });
    }
    const body = make("tbody");
    rows = order.map((module) => {
      const row = make("tr", { "aria-level": isFlat ? 1 : here().levels[module], tabindex: "-1", "aria-selected": String(module === state.module) });
      const name = make("td", { class: "words", title: here().modules[module] });
      if (!isFlat) {
        name.style.paddingInlineStart = `${(here().levels[module] - 1) * 1.1}rem`;
        const isParent = hasChildren(module);
        if (isParent) row.setAttribute("aria-expanded", String(!state.folded.has(module)));
        const fold = make("span", { class: "fold", "aria-hidden": "true" }, isParent ? (state.folded.has(module) ? "▸" : "▾") : "");
        if (isParent) fold.addEventListener("click", (event) => { event.stopPropagation(); foldUp(module); });
        name.append(fold);
      }
      name.append(isFlat ? here().modules[module] : here().labels[module]);
      row.append(name);
      found.forEach((column) => {
        const cell = make("td", { class: column.words ? "words" : "" });
        const value = column.value(module);
        if (column.sized && value !== null) {
          const size = make("span", { class: "size", "aria-hidden": "true" });
          const inner = make("i");
          inner.style.width = `${Math.min(100, Math.max(0, 100 * value))}%`;
          size.append(inner);
          cell.append(size);
        }
        cell.append(column.sized ? make("span", { class: "number" }, column.text(module)) : column.text(module));
        row.append(cell);
      });
      row.addEventListener("click", () => chooseModule(module));
      row.addEventListener("keydown", (event) => walk(event, module));
      body.append(row);
      return { module, row };
    });
    table.append(make("thead"), body);
    table.firstChild.append(head);
    const scrolled = $("tree").scrollLeft;
    $("tree").replaceChildren(table);
    $("tree").scrollLeft = scrolled;
    const start = rows.find((each) => each.module === state.module) || rows[0];
    if (start) start.row.tabIndex = 0;
    const merged = here().merged ? " The network has more layers than this page can hold: they are merged into blocks, and study.csv has every layer." : "";
    $("network-lead").textContent = `${here().pairs[state.pair]}, in every module. Two numbers in a cell are those of the two footprints.${merged}`;
    $("tree-readout").textContent = state.find ? `${rows.length} of ${here().modules.length} modules` : "";
    $("unfold").textContent = state.folded.size ? "Unfold all" : "Fold";
  }

  function sortBy(index) {
    if (!index) state.sort = -1;
    else if (state.sort !== index) [state.sort, state.upwards] = [index, false];
    else if (!state.upwards) state.upwards = true;
    else state.sort = -1;
    fillTree();
    $("tree").querySelectorAll("thead button")[index].focus();
  }

  function foldUp(module) {
    if (!state.folded.delete(module)) state.folded.add(module);
    fillTree();
    focusRow(module);
  }

  function focusRow(module) {
    const found = rows.find((each) => each.module === module);
    if (!found) return;
    rows.forEach((each) => { each.row.tabIndex = -1; });
    found.row.tabIndex = 0;
    found.row.focus();
  }

  function walk(event, module) {
    const at = rows.findIndex((each) => each.module === module);
    const isFlat = Boolean(state.find) || state.sort >= 0;
    const next = { ArrowUp: at - 1, ArrowDown: at + 1, Home: 0, End: rows.length - 1 }[event.key];
    if (next !== undefined) {
      event.preventDefault();
      focusRow(rows[Math.min(rows.length - 1, Math.max(0, next))].module);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      chooseModule(module);
      focusRow(module);
    } else if ((event.key === "ArrowRight" || event.key === "ArrowLeft") && !isFlat) {
      event.preventDefault();
      const isFolded = state.folded.has(module);
      if (hasChildren(module) && isFolded === (event.key === "ArrowRight")) foldUp(module);
      else if (event.key === "ArrowLeft") {
        const above = rows.slice(0, at).reverse().find((each) => here().levels[each.module] < here().levels[module]);
        if (above) focusRow(above.module);
      }
    }
  }

  function foldDeep() {
    // Fold so that the table fits a screen.
    const { levels } = here();
    const counts = (depth) => levels.filter((level) => level <= depth).length;
    let depth = Math.max(...levels);
    while (depth > 2 && counts(depth) > MOST_UNFOLDED) depth -= 1;
    state.folded = new Set(levels.map((_, module) => module).filter((module) => levels[module] >= depth && hasChildren(module)));
  }

  function toCsv() {
    const quoted = (text) => `"${(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
    const plain = (value) => (value === null ? "" : String(value));
    const [a, b] = members(state.pair);
    const found = [];
    for (const quantity of here().quantities) {
      if (quantity.of === "pairs") {
        found.push([quantity.title, (m) => plain(quantity.values[m][state.pair])]);
        if (quantity.low) found.push([`${quantity.title}, low`, (m) => plain(quantity.low[m][state.pair])], [`${quantity.title}, high`, (m) => plain(quantity.high[m][state.pair])]);
      } else {
        for (const each of [a, b]) found.push([`${quantity.title} of ${here().names[each]}`, (m) => plain(quantity.values[m][each])]);
      }
    }
    if (here().verdicts) found.push(["against its null", (m) => verdict(m, state.pair)]);
    const lines = [["module", ...found.map(([title]) => title)].map(quoted).join(",")];
    here().modules.forEach((name, module) => lines.push([quoted(name), ...found.map(([, text]) => text(module))].join(",")));
    return `${lines.join("\n")}\n`;
  }

  function download() {
    const link = make("a", { href: URL.createObjectURL(new Blob([toCsv()], { type: "text/csv" })), download: "overlap.csv" });
    document.body.append(link);
    link.click();
    link.remove();
    URL.revokeObjectURL(link.href);
  }

  // The controls ---------------------------------------------------------------------------------------------------

  function chooseModule(module) {
    state.module = module;
    $("module").value = String(module);
    paintMap();
    drawCurve();
    fillTree();
  }

  function options(select, words, chosen) {
    select.replaceChildren(...words.map(([value, text]) => make("option", { value: String(value) }, text)));
    select.value = String(chosen);
  }

  function openTable(index) {
    state.table = index;
    [state.module, state.pair, state.sort, state.find] = [0, 0, -1, ""];
    $("find").value = "";
    state.quantity = here().quantities.findIndex((quantity) => quantity.mapped && quantity.of === "pairs");
    const { levels } = here();
    const deepest = Math.max(...levels);
    state.depth = deepest;
    foldDeep();
    options($("module"), here().modules.map((name, module) => [module, "\u2003".repeat(levels[module] - 1) + (module ? here().labels[module] : name)]), 0);
    options($("quantity"), here().quantities.map((quantity, place_) => [place_, quantity]).filter(([, quantity]) => quantity.mapped && quantity.of === "pairs").map(([place_, quantity]) => [place_, quantity.title]), state.quantity);
    options($("depth-of"), range(Math.min(2, deepest), deepest + 1).map((depth) => [depth, depth === deepest ? "every layer" : `${depth - 1} ${depth === 2 ? "level" : "levels"} below the top`]), deepest);
    const isFlat = levels.length === 1;
    for (const id of ["depth", "network"]) $(id).hidden = isFlat;
    buildMap();
    paintMap();
    drawCurve();
    fillTree();
  }

  $("overlap").hidden = $("depth").hidden = $("network").hidden = false;
  options($("table"), tables.map((each, index) => [index, each.title]), 0);
  $("choose-table").hidden = tables.length === 1;
  $("table").addEventListener("change", (event) => openTable(Number(event.target.value)));
  $("module").addEventListener("change", (event) => chooseModule(Number(event.target.value)));
  $("quantity").addEventListener("change", (event) => { state.quantity = Number(event.target.value); paintMap(); drawCurve(); });
  $("stretch").addEventListener("change", (event) => { state.stretch = event.target.checked; paintMap(); drawCurve(); });
  $("depth-of").addEventListener("change", (event) => { state.depth = Number(event.target.value); drawCurve(); });
  $("find").addEventListener("input", (event) => { state.find = event.target.value.trim().toLowerCase(); fillTree(); });
  $("unfold").addEventListener("click", () => { if (state.folded.size) state.folded.clear(); else foldDeep(); fillTree(); });
  $("download").addEventListener("click", download);
  for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
  let width = 0;
  new ResizeObserver(([entry]) => {
    if (Math.abs(entry.contentRect.width - width) < 1) return;
    width = entry.contentRect.width;
    drawCurve();
  }).observe($("curve"));
  openTable(0);
})();
