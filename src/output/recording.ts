// Captured output on disk: the format of its files, and the ways through them. Pure: whoever has the
// files hands in their bytes.
//
//   @1700000000000 o 0000000011 0000000087\n   when, in ms; o stdout, e stderr, n a note of ours;
//   two\nlines…\n                              bytes that follow; bytes that the record before has
//
// The way from record to record is told by lengths alone, so a line that looks like a header misleads
// nobody, and less and grep can read the files.

import { HISTORY_BLOCK_BYTES } from "../limits.ts";
import { NEWLINE } from "../lines.ts";

/** Whose lines they are; a note is the orchestrator's own, on lines that are missing. */
export type RecordStream = "stdout" | "stderr" | "note";

/** Whole lines that came together. */
export interface OutputRecord {
  /** Milliseconds since 1970. */
  readonly time: number;
  readonly stream: RecordStream;
  /** Views of the lines, in order, at least one; together `length` bytes. */
  readonly regions: readonly Buffer[];
  readonly length: number;
}

/** What the header of a record says. */
export interface RecordHead {
  readonly time: number;
  readonly stream: RecordStream;
  readonly length: number;
  /** Length of the record before, also if it ends the file before; 0: there is none. */
  readonly before: number;
}

export const HEAD_BYTES = 39;

const HEAD = /^@(\d{13}) ([oen]) (\d{10}) (\d{10})\n$/;
const LETTERS = { stdout: "o", stderr: "e", note: "n" } as const;
const STREAMS: Readonly<Record<string, RecordStream>> = { o: "stdout", e: "stderr", n: "note" };

export function formatHead({ time, stream, length, before }: RecordHead): Buffer {
  const [when, size, last] = [decimal(time, 13), decimal(length, 10), decimal(before, 10)];
  return Buffer.from(`@${when} ${LETTERS[stream]} ${size} ${last}\n`, "latin1");
}

function decimal(value: number, digits: number): string {
  return String(Math.max(0, Math.floor(value))).padStart(digits, "0");
}

/** Reads the header that `bytes` begins with; undefined if it is none. */
export function parseHead(bytes: Buffer): RecordHead | undefined {
  const match = HEAD.exec(bytes.toString("latin1", 0, HEAD_BYTES));
  if (match === null) return undefined;
  const [, time, letter, length, before] = match as unknown as [
    string,
    string,
    string,
    string,
    string,
  ];
  const stream = STREAMS[letter] as RecordStream;
  return Number(length) === 0
    ? undefined
    : { time: Number(time), stream, length: Number(length), before: Number(before) };
}

/** Between two records. */
export interface Place {
  readonly file: number;
  readonly offset: number;
  /** Length of the record that ends here, or at the end of the file before; 0: there is none. */
  readonly before: number;
}

/** The files of one instance, numbered upward without gaps. */
export interface RecordFiles {
  /** The oldest file that is still there. */
  readonly firstFile: number;
  /** Behind the last record. */
  readonly end: Place;
  /** Bytes of whole records; fewer than asked for where the file ends, none if it is gone. */
  read(file: number, from: number, to: number): Promise<Buffer>;
  /** 0 if the file is gone. */
  size(file: number): Promise<number>;
}

/** A record that was found on disk; its lines are read when they are asked for. */
export interface Entry {
  readonly time: number;
  readonly stream: RecordStream;
  /** Whole lines, each with its newline. */
  lines(): Promise<Buffer>;
}

/** Which lines are wanted; of those that all other fields allow, the last `last`. */
export interface OutputQuery {
  readonly last?: number | undefined;
  /** Milliseconds since 1970, both included. */
  readonly since?: number | undefined;
  readonly until?: number | undefined;
  /** Notes belong to both. */
  readonly stream?: "stdout" | "stderr" | undefined;
}

/** Reads ranges of files through one block, so that small records cost no system call each. */
class Blocks {
  readonly #files: Pick<RecordFiles, "read">;
  #file = -1;
  #start = 0;
  #bytes: Buffer = Buffer.alloc(0);

  constructor(files: Pick<RecordFiles, "read">) {
    this.#files = files;
  }

  /** What follows is likely to be wanted next, or with `isBackward` what comes before. */
  async read(file: number, from: number, to: number, isBackward: boolean = false): Promise<Buffer> {
    if (file !== this.#file || from < this.#start || to > this.#start + this.#bytes.length) {
      if (to - from > HISTORY_BLOCK_BYTES) return this.#files.read(file, from, to);
      const start = isBackward ? Math.max(0, to - HISTORY_BLOCK_BYTES) : from;
      const bytes = await this.#files.read(file, start, start + HISTORY_BLOCK_BYTES);
      [this.#file, this.#start, this.#bytes] = [file, start, bytes];
      return bytes.subarray(from - start, to - start);
    }
    return this.#bytes.subarray(from - this.#start, to - this.#start);
  }
}

/** Where the last whole record of a file ends, which may have been cut anywhere. */
export async function wholeEnd(files: Pick<RecordFiles, "read">, file: number): Promise<Place> {
  const blocks = new Blocks(files);
  let end: Place = { file, offset: 0, before: 0 };
  for (;;) {
    const { offset } = end;
    const head = parseHead(await blocks.read(file, offset, offset + HEAD_BYTES));
    if (head === undefined || (offset > 0 && head.before !== end.before)) break;
    const next = offset + HEAD_BYTES + head.length;
    const [last] = await blocks.read(file, next - 1, next + HEAD_BYTES - 1);
    if (last !== NEWLINE) break;
    end = { file, offset: next, before: head.length };
  }
  return end;
}

/** The records between two places; says so where some have been rotated out meanwhile. */
export async function* recordsBetween(
  files: RecordFiles,
  from: Place,
  to: Place,
): AsyncGenerator<Entry, void, void> {
  const blocks = new Blocks(files);
  let { file, offset } = from;
  let time = 0;
  while (file < to.file || (file === to.file && offset < to.offset)) {
    if (file < files.firstFile) {
      yield lostEntry(time);
      [file, offset] = [files.firstFile, 0];
      continue;
    }
    const head = parseHead(await blocks.read(file, offset, offset + HEAD_BYTES));
    if (file < files.firstFile) continue;
    if (head === undefined) {
      [file, offset] = [file + 1, 0]; // the file ends here, or what follows is damaged
      continue;
    }
    ({ time } = head);
    yield entryAt(blocks, file, offset, head);
    offset += HEAD_BYTES + head.length;
  }
}

function entryAt(blocks: Blocks, file: number, offset: number, head: RecordHead): Entry {
  const start = offset + HEAD_BYTES;
  const lines = async (): Promise<Buffer> => {
    const bytes = await blocks.read(file, start, start + head.length);
    return bytes.length === head.length ? bytes : LOST;
  };
  return { time: head.time, stream: head.stream, lines };
}

const LOST = Buffer.from(
  "[veecle-orchestrator: older lines were rotated out before this reader came to them]\n",
);

function lostEntry(time: number): Entry {
  return { time, stream: "note", lines: () => Promise.resolve(LOST) };
}

/** The entries before `end` that a query asks for. */
export async function* select(
  files: RecordFiles,
  query: OutputQuery,
  end: Place,
): AsyncGenerator<Entry, void, void> {
  let from: Place = { file: files.firstFile, offset: 0, before: 0 };
  let skip = 0;
  if (query.last !== undefined) [from, skip] = await startOfLast(files, query, query.last, end);
  for await (const entry of recordsBetween(files, from, end)) {
    if (!matches(entry, query)) continue;
    yield skip === 0 ? entry : withoutFirst(entry, skip);
    skip = 0;
  }
}

/** Whether a record is wanted, but for its place among the last. */
export function matches({ time, stream }: RecordHead | Entry, query: OutputQuery): boolean {
  const { since = -Infinity, until = Infinity } = query;
  if (time < since || time > until) return false;
  return query.stream === undefined || stream === query.stream || stream === "note";
}

/** Goes back from `end` until `last` lines are found: where they begin, and lines to skip there. */
async function startOfLast(
  files: RecordFiles,
  query: OutputQuery,
  last: number,
  end: Place,
): Promise<[from: Place, skip: number]> {
  const blocks = new Blocks(files);
  let place = end;
  for (let wanted = last; wanted > 0 && place.before > 0;) {
    let { file, offset } = place;
    if (offset === 0) offset = await files.size(--file);
    const start = offset - place.before;
    const at = start - HEAD_BYTES;
    if (file < files.firstFile || at < 0) break;
    const head = parseHead(await blocks.read(file, at, start, true));
    if (head?.length !== place.before) break; // damaged: nobody knows where older ones begin
    place = { file, offset: at, before: head.before };
    if (!matches(head, query)) continue;
    const count = countLines(await blocks.read(file, start, offset, true));
    if (count >= wanted) return [place, count - wanted];
    wanted -= count;
  }
  return [place, 0];
}

function withoutFirst(entry: Entry, count: number): Entry {
  const lines = async (): Promise<Buffer> => {
    const bytes = await entry.lines();
    let at = 0;
    for (let skipped = 0; skipped < count; skipped++) at = bytes.indexOf(NEWLINE, at) + 1;
    return bytes.subarray(at);
  };
  return { ...entry, lines };
}

/** How many lines end in these bytes. */
export function countLines(bytes: Buffer): number {
  let count = 0;
  for (let at = bytes.indexOf(NEWLINE); at >= 0; at = bytes.indexOf(NEWLINE, at + 1)) count++;
  return count;
}

/**
 * Joins sequences into one in order of time, of which it holds one item each. Each keeps its own
 * order, whatever its times are; of equal times the earlier sequence comes first.
 */
export async function* mergeByTime<T extends { readonly time: number }>(
  sequences: readonly AsyncGenerator<T, void, void>[],
): AsyncGenerator<T, void, void> {
  const heads: { item: T; index: number }[] = []; // the next one is the last
  const take = async (index: number): Promise<void> => {
    const { done, value } = await (sequences[index] as AsyncGenerator<T, void, void>).next();
    if (done === true) return;
    const { time } = value;
    let [low, high] = [0, heads.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      const other = heads[middle] as { item: T; index: number };
      const isLater = other.item.time > time || (other.item.time === time && other.index > index);
      if (isLater) low = middle + 1;
      else high = middle;
    }
    heads.splice(low, 0, { item: value, index });
  };
  try {
    for (const index of sequences.keys()) await take(index);
    for (let next = heads.pop(); next !== undefined; next = heads.pop()) {
      yield next.item;
      await take(next.index);
    }
  } finally {
    for (const sequence of sequences) await sequence.return();
  }
}
