// Tables without borders: columns as wide as their widest cell, or as a screen allows. Pure.

import { escapeText, PRINTABLE } from "../log.ts";

/** A column is never made narrower than this to fit a screen. */
const MIN_COLUMN = 8;

/** `text` in an ANSI style such as `1;31` (bold and red), if colours are wanted. */
export function paint(colour: boolean, style: string, text: string): string {
  return colour ? `\x1b[${style}m${text}\x1b[0m` : text;
}

/** At most so many columns of a screen, at least one; an ellipsis stands for what is cut. */
export function fit(text: string, columns: number): string {
  if (Bun.stringWidth(text) <= columns) return text;
  let shown = Bun.sliceAnsi(text, 0, columns - 1);
  // A wide character that begins within the last column does not end there.
  if (Bun.stringWidth(shown) >= columns) shown = Bun.sliceAnsi(text, 0, columns - 2);
  return `${shown}…`;
}

/** Like `fit`, and keeps both ends: names that begin alike often differ at theirs. */
export function fitMiddle(text: string, columns: number): string {
  const width = Bun.stringWidth(text);
  if (width <= columns) return text;
  const tail = Math.max(0, Math.floor((columns - 1) / 2));
  const head = fit(text, columns - tail);
  // A wide character that begins before the tail does not belong to it.
  let end = Bun.sliceAnsi(text, width - tail);
  if (Bun.stringWidth(end) > tail) end = Bun.sliceAnsi(text, width - tail + 1);
  return `${head}${end}`;
}

/** Of a line on a screen, a name takes no more than this share. */
const NAME_SHARE = 0.4;

/** A name beside other things on a screen, if there is one. */
export function shortName(name: string, columns: number | undefined): string {
  return columns === undefined ? name : fitMiddle(name, Math.floor(columns * NAME_SHARE));
}

export interface TableOptions {
  readonly colour: boolean;
  /** Of the screen; without it, rows are as long as they are. */
  readonly columns?: number | undefined;
  /** Columns that are left out where not all fit, the first one first: better than all of them cut. */
  readonly spare?: readonly number[];
  /** Columns of which both ends are shown where they are cut. */
  readonly names?: readonly number[];
  /** Columns that are never cut. */
  readonly whole?: readonly number[];
  /** The style of a cell, or "". */
  style?(row: number, column: number): string;
}

/** One row per line, two spaces between columns. Cells lose what would drive a terminal. */
export function formatTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  { colour, columns, spare = [], names = [], whole = [], style }: TableOptions,
): string {
  const measured = rows.map(measure);
  const heading = measure(header);
  const widths = [...heading.widths];
  for (const row of measured) {
    for (let column = 0; column < row.widths.length; column++) {
      const width = row.widths[column] as number;
      if (width > (widths[column] ?? 0)) widths[column] = width;
    }
  }
  const left = columns === undefined ? new Set<number>() : leaveOut(widths, spare, columns);
  const shown = [...widths.keys()].filter((column) => !left.has(column));
  const last = shown.at(-1);
  if (columns !== undefined) shrink(widths, left, whole, columns);
  const line = (row: Measured, styleOf: (column: number) => string): string => {
    let text = "";
    for (const column of shown) {
      const width = widths[column] as number;
      let cell = row.cells[column] as string;
      let cellWidth = row.widths[column] as number;
      if (cellWidth > width) {
        cell = (names.includes(column) ? fitMiddle : fit)(cell, width);
        cellWidth = Bun.stringWidth(cell);
      }
      text += colour ? painted(styleOf(column), cell) : cell;
      if (column !== last) text += " ".repeat(width - cellWidth + 2);
    }
    text = text.trimEnd();
    return columns === undefined ? text : fit(text, columns);
  };
  const head = paint(
    colour,
    "1",
    line(heading, () => ""),
  );
  const body = measured.map((row, index) => line(row, (column) => style?.(index, column) ?? ""));
  return [head, ...body].map((text) => `${text}\n`).join("");
}

function painted(style: string, text: string): string {
  return style === "" ? text : paint(true, style, text);
}

/** One row: its cells without what would drive a terminal, and their columns on a screen. */
interface Measured {
  readonly cells: readonly string[];
  readonly widths: readonly number[];
}

/** Most rows are of plain characters alone, whose columns need not be asked for one by one. */
function measure(row: readonly string[]): Measured {
  if (PRINTABLE.test(row.join(" "))) return { cells: row, widths: row.map(({ length }) => length) };
  const cells = row.map(escapeText);
  return { cells, widths: cells.map((cell) => Bun.stringWidth(cell)) };
}

/** Columns too many for one row, of those that are spare. */
function leaveOut(
  widths: readonly number[],
  spare: readonly number[],
  columns: number,
): ReadonlySet<number> {
  const left = new Set<number>();
  let total = widths.reduce((sum, width) => sum + width + 2, -2);
  for (const column of spare) {
    if (total <= columns) break;
    left.add(column);
    total -= (widths[column] as number) + 2;
  }
  return left;
}

/** Takes from the widest columns until the row fits, or nothing more can be taken. */
function shrink(
  widths: number[],
  left: ReadonlySet<number>,
  whole: readonly number[],
  columns: number,
): void {
  for (const column of left) widths[column] = 0;
  const gaps = 2 * (widths.length - left.size - 1);
  let excess = widths.reduce((sum, width) => sum + width, gaps) - columns;
  while (excess > 0) {
    const widest = Math.max(...widths.filter((_, column) => !whole.includes(column)));
    if (widest <= MIN_COLUMN) return;
    const at = widths.findIndex((width, column) => width === widest && !whole.includes(column));
    widths[at] = widest - 1;
    excess--;
  }
}
