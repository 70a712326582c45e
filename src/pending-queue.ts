/** A first-in-first-out queue from whose middle requests can leave in constant time, when they are given up. */

/** What an element needs so that it can be in one queue at a time. */
export interface QueueLinks<T> {
  previous: T | null;
  next: T | null;
}

export class PendingQueue<T extends QueueLinks<T>> {
  #first: T | null = null;
  #last: T | null = null;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** The oldest; null if there is none. */
  get first(): T | null {
    return this.#first;
  }

  push(element: T): void {
    element.previous = this.#last;
    element.next = null;
    if (this.#last === null) this.#first = element;
    else this.#last.next = element;
    this.#last = element;
    this.#length += 1;
  }

  /** Takes out the oldest. */
  shift(): T | null {
    const first = this.#first;
    if (first !== null) this.remove(first);
    return first;
  }

  /** Takes out an element that is in this queue. */
  remove(element: T): void {
    if (element.previous === null) this.#first = element.next;
    else element.previous.next = element.next;
    if (element.next === null) this.#last = element.previous;
    else element.next.previous = element.previous;
    element.previous = null;
    element.next = null;
    this.#length -= 1;
  }

  /** Oldest first. The element just yielded may be removed meanwhile. */
  *[Symbol.iterator](): Generator<T> {
    let element = this.#first;
    while (element !== null) {
      const { next } = element;
      yield element;
      element = next;
    }
  }
}
