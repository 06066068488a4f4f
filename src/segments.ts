// The list of stretches of messages in an outbox, in order of arrival, and of each link among them.
//
// A segment stands in two lists at once: of the outbox, which decides what is sent next, and of its
// queue, which decides what is dropped first. Counts and bytes are the outbox's business.

import { GATHER_BLOCK_BYTES } from "./limits.ts";
import { type Dialect, messageEnd } from "./message.ts";
import type { LinkQueue, Segment } from "./queue.ts";
import type { TypeName } from "./typename.ts";

/** Segments in order of arrival. */
export class SegmentList {
  first: Segment | undefined;
  last: Segment | undefined;

  append(
    queue: LinkQueue,
    type: TypeName | undefined,
    dialect: Dialect,
    chunk: Buffer,
    start: number,
    end: number,
    count: number,
  ): Segment {
    const segment: Segment = {
      queue,
      dialect,
      type,
      chunk,
      start,
      end,
      count,
      partial: false,
      previous: this.last,
      next: undefined,
      previousOfQueue: queue.last,
      nextOfQueue: undefined,
    };
    if (this.last === undefined) this.first = segment;
    else this.last.next = segment;
    this.last = segment;
    if (queue.last === undefined) queue.first = segment;
    else queue.last.nextOfQueue = segment;
    queue.last = segment;
    return segment;
  }

  /** Takes a segment out of both lists; its own pointers stay as they are. */
  remove(segment: Segment): void {
    const { queue, previous, next, previousOfQueue, nextOfQueue } = segment;
    if (previous === undefined) this.first = next;
    else previous.next = next;
    if (next === undefined) this.last = previous;
    else next.previous = previous;
    if (previousOfQueue === undefined) queue.first = nextOfQueue;
    else previousOfQueue.nextOfQueue = nextOfQueue;
    if (nextOfQueue === undefined) queue.last = previousOfQueue;
    else nextOfQueue.previousOfQueue = previousOfQueue;
  }

  /** Splits off what stands behind the first message, which ends at `end`. */
  splitFirst(segment: Segment, end: number): void {
    const rest: Segment = {
      ...segment,
      start: end,
      count: segment.count - 1,
      partial: false,
      previous: segment,
      previousOfQueue: segment,
    };
    segment.end = end;
    segment.count = 1;
    segment.next = rest;
    segment.nextOfQueue = rest;
    if (rest.next === undefined) this.last = rest;
    else rest.next.previous = rest;
    if (rest.nextOfQueue === undefined) rest.queue.last = rest;
    else rest.nextOfQueue.previousOfQueue = rest;
  }

  /** Joins a segment with the one before it if they are neighbours in every respect. */
  merge(segment: Segment): void {
    const { previous } = segment;
    if (
      previous?.queue === segment.queue &&
      previous.chunk === segment.chunk &&
      previous.end === segment.start &&
      previous.dialect === segment.dialect &&
      !previous.partial
    ) {
      this.remove(segment);
      previous.end = segment.end;
      previous.count += segment.count;
    }
  }
}

/** Copies a segment behind what its queue has already, in blocks that grow with the queue. */
export function copyIntoBlock(segment: Segment): void {
  const { queue } = segment;
  const length = segment.end - segment.start;
  if (queue.block === undefined || queue.blockFilled + length > queue.block.length) {
    const size = Math.min(Math.max(queue.queuedBytes, 4096), GATHER_BLOCK_BYTES);
    queue.block = Buffer.allocUnsafeSlow(Math.max(size, length));
    queue.blockFilled = 0;
  }
  const at = queue.blockFilled;
  queue.blockFilled += segment.chunk.copy(queue.block, at, segment.start, segment.end);
  segment.chunk = queue.block;
  segment.start = at;
  segment.end = queue.blockFilled;
}

/**
 * Of messages that come to a queue without room for all, where the newest begin that fit if the
 * queue gives up its own, but for one whose beginning is sent; and how many they are.
 */
export function newestThatFit(
  queue: LinkQueue,
  dialect: Dialect,
  chunk: Buffer,
  start: number,
  end: number,
  count: number,
): [from: number, count: number] {
  const { maxBytes, maxMessages } = queue.settings;
  const cut = queue.first?.partial === true ? queue.first : undefined;
  const roomBytes = maxBytes - (cut === undefined ? 0 : cut.end - cut.start);
  const room = maxMessages - (cut === undefined ? 0 : 1);
  let from = start;
  let left = count;
  while (left > 0 && (end - from > roomBytes || left > room)) {
    from = messageEnd(dialect, chunk, from);
    left--;
  }
  return [from, left];
}

/** Of messages that come to a queue without room for all, where the oldest end that fit; and how many they are. */
export function oldestThatFit(
  queue: LinkQueue,
  dialect: Dialect,
  chunk: Buffer,
  start: number,
  count: number,
): [to: number, count: number] {
  let to = start;
  let kept = 0;
  while (kept < count) {
    const next = messageEnd(dialect, chunk, to);
    if (!queue.hasRoom(next - start, kept + 1)) break;
    to = next;
    kept++;
  }
  return [to, kept];
}

/** The length of the longest message of a segment. */
export function longestOf({ dialect, chunk, start, end }: Segment): number {
  let longest = 0;
  for (let at = start; at < end;) {
    const next = messageEnd(dialect, chunk, at);
    longest = Math.max(longest, next - at);
    at = next;
  }
  return longest;
}
