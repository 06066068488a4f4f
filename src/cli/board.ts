// A line for each of several things, which change in place on a screen. Away from one it is not used.

import { escapeText } from "../log.ts";
import { fit, paint, shortName } from "./table.ts";

/** How a line looks: on its way, done, or in trouble. */
export type Look = "33" | "32" | "31" | "2";

export class Board {
  readonly #report: (text: string) => void;
  readonly #columns: number;
  readonly #colour: boolean;
  readonly #names: readonly string[];
  readonly #lines: Map<string, { readonly text: string; readonly look: Look }> = new Map();
  #drawn = 0;
  #isClosed = false;

  constructor(
    names: readonly string[],
    report: (text: string) => void,
    columns: number,
    colour: boolean,
  ) {
    this.#names = names;
    this.#report = report;
    this.#columns = columns;
    this.#colour = colour;
  }

  /** Leaves what is shown as it is, since something else is told below it. */
  close(): void {
    this.#isClosed = true;
  }

  /** Changes the line of a name. */
  set(name: string, text: string, look: Look): void {
    if (this.#isClosed) return;
    this.#lines.set(name, { text, look });
    this.#draw();
  }

  #draw(): void {
    const short = (name: string): string => shortName(name, this.#columns);
    const width = Math.max(...this.#names.map((name) => Bun.stringWidth(short(name))));
    const lines = this.#names.flatMap((name) => {
      const line = this.#lines.get(name);
      if (line === undefined) return [];
      const padding = " ".repeat(width - Bun.stringWidth(short(name)));
      const shown = fit(`${short(name)}${padding}  ${escapeText(line.text)}`, this.#columns - 1);
      return `\r\x1b[K${paint(this.#colour, line.look, shown)}\n`;
    });
    const back = this.#drawn === 0 ? "" : `\x1b[${this.#drawn}A`;
    this.#report(back + lines.join(""));
    this.#drawn = lines.length;
  }
}
