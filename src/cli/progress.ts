// The progress of an upload on standard error: a bar on a screen, else one line per ten percent.

import type { Session } from "./session.ts";
import { fit } from "./table.ts";
import { DEFAULT_COLUMNS } from "./terminal.ts";
import { formatBytes } from "./words.ts";

/** Pause between two pictures of the bar. */
const PICTURE_MS = 100;
const BAR_WIDTH = 24;

export class Progress {
  readonly #report: (text: string) => void;
  readonly #screen: boolean;
  readonly #now: () => number;
  readonly #columns: number;
  readonly #startMs: number;
  #pictureMs = Number.NEGATIVE_INFINITY;
  #tenths = 0;

  /** `now` is in milliseconds of any clock that does not go back. */
  constructor(
    report: (text: string) => void,
    screen: boolean,
    now: () => number,
    columns: number = DEFAULT_COLUMNS,
  ) {
    this.#columns = columns;
    this.#report = report;
    this.#screen = screen;
    this.#now = now;
    this.#startMs = now();
  }

  update(sentBytes: number, totalBytes: number): void {
    if (this.#screen) this.#draw(sentBytes, totalBytes);
    else this.#tell(sentBytes, totalBytes);
  }

  /** Takes the bar away. */
  end(): void {
    if (this.#screen && this.#pictureMs > 0) this.#report("\r\x1b[K");
  }

  #draw(sentBytes: number, totalBytes: number): void {
    const now = this.#now();
    if (now - this.#pictureMs < PICTURE_MS && sentBytes < totalBytes) return;
    this.#pictureMs = now;
    const share = totalBytes === 0 ? 1 : sentBytes / totalBytes;
    const bar = "=".repeat(Math.floor(share * BAR_WIDTH)).padEnd(BAR_WIDTH);
    const rate = sentBytes / Math.max(1, now - this.#startMs); // bytes per millisecond
    const leftSeconds = Math.ceil((totalBytes - sentBytes) / Math.max(rate, 0.001) / 1000);
    const facts =
      `${Math.floor(share * 100)} %  ${formatBytes(sentBytes)} of ` +
      `${formatBytes(totalBytes)}  ${formatBytes(rate * 1000)}/s  ${leftSeconds} s left`;
    // A picture that goes on in the next line could not be replaced; the last column is the cursor's.
    const room = this.#columns - 1;
    const isRoomy = bar.length + facts.length + 3 <= room;
    this.#report(`\r\x1b[K${isRoomy ? `[${bar}] ${facts}` : fit(facts, room)}`);
  }

  #tell(sentBytes: number, totalBytes: number): void {
    const tenths = totalBytes === 0 ? 10 : Math.floor((sentBytes * 10) / totalBytes);
    if (tenths === this.#tenths) return;
    this.#tenths = tenths;
    this.#report(`sent ${tenths * 10} % (${sentBytes} of ${totalBytes} bytes)\n`);
  }
}

/** The progress of an upload of a command; nothing where a program reads, or only ids are wanted. */
export function progressOf({ terminal, isJson, isQuiet }: Session): Progress {
  const report = isJson || isQuiet ? (): void => {} : terminal.report;
  return new Progress(
    report,
    terminal.reportIsScreen,
    () => performance.now(),
    terminal.reportColumns,
  );
}
