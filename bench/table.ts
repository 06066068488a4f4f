// The printed table of the benchmarks: one line for each figure, and what follows from all of them.

import { type Figure, isRate, type Row } from "./row.ts";

/** What one figure came to. */
export interface Result {
  readonly figure: Figure;
  readonly ours: number;
  /** The baseline; undefined if the row has none. */
  readonly bare: number | undefined;
  /** With the load generators joined to each other; undefined if the row has none. */
  readonly direct: number | undefined;
  /** Of ours to the baseline: median, least and greatest of the pairs. */
  readonly ratio: number | undefined;
  readonly spread: readonly [number, number];
  readonly isReached: boolean | undefined;
  /** Work of all rounds of ours together; the checksum is that of each. */
  readonly count: number;
  readonly bytes: number;
  readonly crc: number;
  readonly dropped: number;
  /** What else there is to say about the row. */
  readonly note: string | undefined;
}

const WIDTHS = [52, 13, 13, 20, 8, 5, 13] as const;

function line(cells: readonly string[]): string {
  return cells
    .map((cell, i) => {
      const width = WIDTHS[i] ?? 0;
      return i === 0 || i === WIDTHS.length ? cell.padEnd(width) : cell.padStart(width);
    })
    .join("  ")
    .trimEnd();
}

export function formatHeader(): string {
  const head = ["", "ours", "baseline", "ratio (range)", "target", "", "direct", "work of ours"];
  return line(head);
}

export function formatResult(result: Result): string {
  const { figure, ratio, spread, direct, isReached } = result;
  const { unit } = figure;
  const [low, high] = spread.map((one) => one.toFixed(2));
  return line([
    figure.name,
    formatValue(result.ours, unit),
    result.bare === undefined ? "" : formatValue(result.bare, unit),
    ratio === undefined ? "" : `${ratio.toFixed(2)} (${low}-${high})`,
    formatTarget(figure),
    isReached === undefined ? "" : isReached ? "ok" : "MISS",
    direct === undefined ? "" : formatValue(direct, unit),
    formatWork(result),
  ]);
}

/** The line of a row that this machine cannot run. */
export function formatMissing({ figures, needs }: Row): string {
  return line([figures[0]?.name ?? "", `${needs?.program} is not installed`]);
}

/** The load generators must not be what is measured: here the bench says whether they are. */
export function formatSummary(results: readonly Result[], isSmoke: boolean): string {
  if (isSmoke) return "The work was right everywhere. At this size the figures mean nothing.";
  const slow = results.filter((result) => !isOutrun(result)).map(({ figure }) => figure.name);
  const missed = results.filter(({ isReached }) => isReached === false);
  const outrun =
    slow.length === 0
      ? "The load generators, joined directly, were faster than every figure taken through them."
      : `Joined directly, the load generators were NOT faster in: ${slow.join("; ")}.`;
  const reached =
    missed.length === 0
      ? "Every target was reached."
      : `Missed: ${missed.map(({ figure }) => figure.name).join("; ")}.`;
  return `${outrun}\n${reached}`;
}

/** Whether the load generators by themselves are faster than with anything between them. */
function isOutrun({ figure, ours, bare, direct }: Result): boolean {
  if (direct === undefined || bare === undefined) return true;
  return isRate(figure) ? direct > Math.max(ours, bare) : direct < Math.min(ours, bare);
}

/** What is asked of the ratio, or of the figure itself; then it has a unit. */
function formatTarget(figure: Figure): string {
  const { target, limit, unit } = figure;
  if (limit !== undefined) return `≤ ${limit} ${unit}`;
  return target === undefined ? "none" : `${isRate(figure) ? "≥" : "≤"} ${target}`;
}

function formatValue(value: number, unit: string): string {
  if (!unit.endsWith("/s")) return `${value.toFixed(value < 100 ? 1 : 0)} ${unit}`;
  const [scale, prefix] = value >= 1e9 ? [1e9, "G"] : value >= 1e6 ? [1e6, "M"] : [1e3, "k"];
  return `${(value / scale).toFixed(2)} ${prefix}${unit === "trips/s" ? "/s" : unit}`;
}

function formatWork({ count, bytes, crc, dropped, note }: Result): string {
  const size = bytes === 0 ? "" : `, ${(bytes / 1e6).toFixed(0)} MB`;
  const hash = crc.toString(16).padStart(8, "0");
  return `${count.toLocaleString("en")}${size}, crc ${hash}, ${dropped} dropped${note === undefined ? "" : `; ${note}`}`;
}
