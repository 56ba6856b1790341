// The nodes of a fleet, which only its hub has: name, state, what ails it, and a link to its own page.

import { element } from "./display.js";

const STATES = { live: "Live", lost: "Lost", ended: "Ended", incompatible: "Other version" };

export class Nodes {
  /** section: hidden unless the service is the hub of a fleet; list: gets an item for each node. */
  constructor(section, list) {
    this.section = section;
    this.list = list;
    this.known = new Map();
  }

  /** Show these nodes; undefined: the service is no hub. */
  reset(nodes) {
    this.known = new Map((nodes ?? []).map((node) => [node.name, node]));
    this.section.hidden = !nodes?.length;
    this.#draw();
  }

  /** Show the state of one node, or nothing of it any more. */
  show(node) {
    if (node.state === "removed") this.known.delete(node.name);
    else this.known.set(node.name, node);
    this.section.hidden = !this.known.size;
    this.#draw();
  }

  /** A link to the node's own page with this text, or the text alone where its address is not known. */
  link(name, text) {
    const page = this.known.get(name)?.page;
    if (!page || !/^https?:\/\//.test(page)) return element("span", "", text);
    return element("a", "", text, { href: page, target: "_blank", rel: "noopener noreferrer" });
  }

  #draw() {
    const names = [...this.known.keys()].sort();
    this.list.replaceChildren(...names.map((name) => this.#item(this.known.get(name))));
  }

  #item({ name, state, detail }) {
    const item = element("li", "node", [this.link(name, name), element("span", "badge", STATES[state] ?? state)]);
    if (detail) item.append(element("span", "node-detail", detail));
    item.dataset.node = name;
    item.dataset.state = state;
    return item;
  }
}
