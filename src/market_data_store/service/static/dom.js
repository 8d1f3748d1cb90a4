// Makes and changes elements. What comes from the server goes into the page as text only.
const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

// Only what changed, else a screen reader repeats it every second.
export function setText(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

export const text = (id, value) => setText(byId(id), value);

export function setClass(element, value) {
  if (element.className !== value) element.className = value;
}

export function make(name, className = "", content = "") {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (content !== "") element.textContent = content;
  return element;
}

export function button(content, onClick, className = "") {
  const element = make("button", className, content);
  element.type = "button";
  element.addEventListener("click", onClick);
  return element;
}

export function link(content, href, className = "") {
  const element = make("a", className, content);
  element.href = href;
  return element;
}

export function draw(name, attributes, content) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (content !== undefined) element.textContent = content;
  return element;
}

// A labelled input, as [label, input].
export function field(label, options = {}) {
  const { type = "text", choices = null, ...rest } = options;
  const input = document.createElement(choices ? "select" : "input");
  if (!choices) input.type = type;
  for (const choice of choices || []) {
    const option = make("option", "", choice || "any");
    option.value = choice;
    input.append(option);
  }
  for (const [name, value] of Object.entries(rest)) input.setAttribute(name, value);
  const around = make("label", "", label);
  around.append(input);
  return [around, input];
}

// One element for each item. An item keeps its element, and so a reader's place and focus, while its key stays.
export function fill(container, items, keyOf, makeRow) {
  const rows = container.rows || (container.rows = new Map());
  const left = new Set(rows.keys());
  let before = null;
  items.forEach((item, index) => {
    const key = `${keyOf(item, index)}`;
    if (!rows.has(key)) rows.set(key, makeRow(item));
    left.delete(key);
    const row = rows.get(key);
    row.update(item);
    const place = before ? before.nextSibling : container.firstChild;
    if (place !== row.element) container.insertBefore(row.element, place);
    before = row.element;
  });
  for (const key of left) {
    rows.get(key).element.remove();
    rows.delete(key);
  }
}

// A row of texts for `fill`: each part is [class, text of an item], or [class, text, address] for a link.
export function parts(list, name = "li") {
  return () => {
    const element = make(name);
    const spans = list.map(([, , address]) => {
      const span = make(address ? "a" : "span");
      element.append(span);
      return span;
    });
    const update = (item) =>
      list.forEach(([className, textOf, address], index) => {
        const span = spans[index], said = textOf(item);
        setText(span, said);
        span.hidden = said === "";
        setClass(span, typeof className === "function" ? className(item) : className);
        if (address && span.getAttribute("href") !== address(item)) span.setAttribute("href", address(item));
      });
    return { element, update };
  };
}
