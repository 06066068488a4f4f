// Streams of a control connection: what is taken from them when the connection has room.

import type { EventInfo } from "../protocol/info.ts";
import type { EventPage, Journal } from "../journal.ts";
import type { InstanceId } from "../model.ts";
import type { Output } from "../output.ts";
import { NEWLINE } from "../lines.ts";
import { type PlayedEntry, playBack, playOn } from "../output/playback.ts";
import type { EventQuery, OutputQuery } from "../protocol.ts";

/** Items as lines, on request: whoever sends them asks again after being woken. */
export interface Stream {
  /** The next whole lines, or undefined if none are there. */
  take(): Buffer | undefined;
  /** Whether there will be no more. */
  isEnded(): boolean;
  /** Nobody takes any more. */
  close(): void;
}

/** Events in one region: one write sends them. */
const EVENTS_AT_ONCE = 200;

/** Output in one region, as it was printed. */
const OUTPUT_AT_ONCE_BYTES = 8 * 1024;

/** Events of before, then those that come. Who reads slowly lags behind in the store, not in memory. */
export class EventStream implements Stream {
  readonly #journal: Journal;
  #query: EventPage;
  readonly #isFollowing: boolean;
  /** The number of the last event that was taken. */
  #after: number;
  /** Some that are to be taken are only in the store. */
  #isBehind = true;
  /** Otherwise all of them, at most `EVENTS_AT_ONCE`. */
  #waiting: EventInfo[] = [];
  readonly #unfollow: () => void;

  constructor(journal: Journal, query: EventQuery, wake: () => void) {
    this.#journal = journal;
    this.#query = query;
    this.#isFollowing = query.follow;
    this.#after = journal.seqBefore(query);
    const { ids } = query;
    this.#unfollow = query.follow
      ? journal.follow((event) => {
          const isWanted = ids === undefined || (event.id !== null && ids.includes(event.id));
          if (this.#isBehind || !isWanted) return;
          this.#waiting.push(event);
          if (this.#waiting.length > EVENTS_AT_ONCE) [this.#isBehind, this.#waiting] = [true, []];
          else wake();
        })
      : () => {};
  }

  take(): Buffer | undefined {
    let events = this.#waiting;
    if (this.#isBehind) {
      events = this.#journal.read(this.#query, this.#after, EVENTS_AT_ONCE);
      this.#isBehind = events.length > 0;
      if (!this.#isBehind) this.#query = { ids: this.#query.ids }; // what comes has no end
    } else this.#waiting = [];
    const last = events.at(-1);
    if (last === undefined) return undefined;
    this.#after = last.seq;
    return encode(events);
  }

  isEnded(): boolean {
    return !this.#isFollowing && !this.#isBehind;
  }

  close(): void {
    this.#unfollow();
  }
}

function encode(events: readonly EventInfo[]): Buffer {
  return Buffer.from(events.map((event) => `${JSON.stringify(event)}\n`).join(""));
}

/** Output of before, then what comes; read from the disk when it is asked for. */
export class OutputStream implements Stream {
  readonly #entries: AsyncGenerator<PlayedEntry, void, void>;
  readonly #stop: AbortController = new AbortController();
  readonly #wake: () => void;
  readonly #onFault: (error: unknown) => void;
  /** Lines that were written together, less those that were taken. */
  #ready: { readonly entry: PlayedEntry; readonly lines: Buffer } | undefined;
  #isReading = false;
  #isEnded = false;

  constructor(
    outputs: ReadonlyMap<InstanceId, Output>,
    query: OutputQuery,
    wake: () => void,
    onFault: (error: unknown) => void,
  ) {
    this.#wake = wake;
    this.#onFault = onFault;
    this.#entries = query.follow
      ? playOn(outputs, query, this.#stop.signal)
      : playBack(outputs, query);
  }

  take(): Buffer | undefined {
    const ready = this.#ready;
    const end = ready === undefined ? 0 : endOfSome(ready.lines);
    const isRest = ready !== undefined && end < ready.lines.length;
    this.#ready = isRest ? { ...ready, lines: ready.lines.subarray(end) } : undefined;
    if (!isRest && !this.#isEnded) void this.#read();
    return ready && encodeLines(ready.entry, ready.lines.subarray(0, end));
  }

  isEnded(): boolean {
    return this.#isEnded && this.#ready === undefined;
  }

  close(): void {
    this.#isEnded = true;
    this.#stop.abort();
    // It may stand between two entries, and would watch for more of them for ever.
    this.#entries.return().catch(this.#onFault);
  }

  /** Reads the next lines that were written together. */
  async #read(): Promise<void> {
    if (this.#isReading) return;
    this.#isReading = true;
    try {
      const { done, value } = await this.#entries.next();
      if (done === true || value === undefined) this.#isEnded = true;
      else this.#ready = { entry: value, lines: await value.lines() };
    } catch (error) {
      this.#isEnded = true;
      this.#onFault(error);
    }
    this.#isReading = false;
    this.#wake();
  }
}

/** Where the last line ends that begins in the first bytes: as an item a line may be a hundred times longer. */
function endOfSome(lines: Buffer): number {
  const end = lines.lastIndexOf(NEWLINE, OUTPUT_AT_ONCE_BYTES) + 1;
  return end > 0 ? end : lines.indexOf(NEWLINE) + 1;
}

/** Each line as an item. */
function encodeLines({ id, time, stream }: PlayedEntry, lines: Buffer): Buffer {
  const head = `{"id":${JSON.stringify(id)},"time":${time},"stream":${
    stream === "note" ? "null" : JSON.stringify(stream)
  },"line":`;
  const texts = lines.toString().slice(0, -1).split("\n");
  return Buffer.from(texts.map((text) => `${head}${JSON.stringify(text)}}\n`).join(""));
}
