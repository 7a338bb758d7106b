// Makes elements. Text only ever becomes text: nothing here parses markup.

export const $ = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

// Writes only what has changed: a screen reader reads again what is written again.
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Text that grows in pieces, of which only the last is shaped again.
export function append(node, text) {
  if (!node.lastChild || node.lastChild.length > 2000) node.append(new Text());
  node.lastChild.appendData(text);
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
