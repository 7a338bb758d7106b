// Keeps a box that grows at its end, unless the user has scrolled up.

export class Follower {
  constructor(box) {
    this.box = box;
    this.isAtEnd = true;
    // Asking for it at each change would lay the whole box out each time.
    box.addEventListener("scroll", () => {
      this.isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    });
    // A view that was hidden, or a line below that has appeared.
    new ResizeObserver(() => this.grown()).observe(box);
  }

  grown() {
    if (this.isAtEnd) this.toEnd();
  }

  toEnd() {
    this.isAtEnd = true;
    this.box.scrollTop = this.box.scrollHeight;
  }
}
