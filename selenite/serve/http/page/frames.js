// Gathers what comes faster than the screen is drawn, and hands it on once a frame.

export class Frames {
  constructor(take) {
    this.take = take; // all that has come since the last frame
    this.items = [];
  }

  add(item) {
    this.items.push(item);
    if (this.items.length === 1) this.frame = requestAnimationFrame(() => this.flush());
  }

  // At once: a hidden page has no frames.
  flush() {
    cancelAnimationFrame(this.frame);
    const items = this.items;
    this.items = [];
    if (items.length) this.take(items);
  }
}
