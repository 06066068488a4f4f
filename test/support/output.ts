// Captured output for tests: records made up, files in memory, and what was read, as text.

import {
  type Entry,
  formatHead,
  HEAD_BYTES,
  type OutputRecord,
  type Place,
  type RecordFiles,
  type RecordStream,
} from "../../src/output/recording.ts";
import type { Random } from "./random.ts";

export function record(time: number, text: string, stream: RecordStream = "stdout"): OutputRecord {
  const region = Buffer.from(text);
  return { time, stream, regions: [region], length: region.length };
}

/** Lines that say which they are, some of which look like the header of a record. */
export function someRecords(random: Random, count: number): OutputRecord[] {
  let line = 0;
  let time = 1_700_000_000_000;
  return Array.from({ length: count }, () => {
    time += random.chance(0.5) ? 0 : random.int(-2, 20);
    const lines = Array.from({ length: random.size(1, 9) }, () => {
      const fill = random.chance(0.2)
        ? formatHead({ time, stream: "stdout", length: 5, before: 5 }).toString()
        : `${"x".repeat(random.size(0, 60))}\n`;
      return `${++line} ${fill}`;
    });
    return record(time, lines.join(""), random.pick(["stdout", "stdout", "stderr", "note"]));
  });
}

/** Files that somebody wrote without a disk. */
export class MemoryFiles implements RecordFiles {
  readonly files: Map<number, Buffer> = new Map();
  firstFile = 1;
  end: Place = { file: 1, offset: 0, before: 0 };
  /** Bytes that were read. */
  bytesRead = 0;

  append(next: OutputRecord): void {
    const { file, offset, before } = this.end;
    const bytes = Buffer.concat([formatHead({ ...next, before }), ...next.regions]);
    this.files.set(file, Buffer.concat([this.files.get(file) ?? Buffer.alloc(0), bytes]));
    this.end = { file, offset: offset + HEAD_BYTES + next.length, before: next.length };
  }

  rotate(): void {
    this.end = { file: this.end.file + 1, offset: 0, before: this.end.before };
  }

  removeFirst(): void {
    this.files.delete(this.firstFile++);
  }

  async read(file: number, from: number, to: number): Promise<Buffer> {
    const bytes = (this.files.get(file) ?? Buffer.alloc(0)).subarray(from, to);
    this.bytesRead += bytes.length;
    return bytes;
  }

  async size(file: number): Promise<number> {
    return this.files.get(file)?.length ?? 0;
  }
}

/** Entries as `time stream text`, each line of their text by itself. */
export async function played(entries: AsyncIterable<Entry>): Promise<string[]> {
  const lines: string[] = [];
  for await (const { time, stream, lines: read } of entries) {
    for (const line of (await read()).toString().split("\n").slice(0, -1)) {
      lines.push(`${time} ${stream} ${line}`);
    }
  }
  return lines;
}

/** The same of records that were never on a disk. */
export function expected(records: readonly OutputRecord[]): string[] {
  return records.flatMap(({ time, stream, regions }) =>
    Buffer.concat([...regions])
      .toString()
      .split("\n")
      .slice(0, -1)
      .map((line) => `${time} ${stream} ${line}`),
  );
}
