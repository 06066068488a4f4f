// What an experiment comes to: figures, each with the bound that is promised and one of sanity.
//
// What must be exact (accounts, order, losses) is no figure: an experiment throws if it is not so.
// Times and rates are noisy, so tests hold figures to the bound of sanity; the soak, which takes its
// time, to the promise.

export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly unit: "" | "ms" | "MiB" | "/s";
  /** Whether the bounds are the least it may be, or the most. */
  readonly is: "at least" | "at most";
  readonly promised: number;
  /** What it comes to even on a machine that does other things. */
  readonly sane: number;
}

export interface Outcome {
  /** What was done, in counts. */
  readonly work: string;
  readonly figures: readonly Figure[];
}

/** The figures that miss their bound, as text; an empty list if all is well. */
export function misses({ figures }: Outcome, bound: "promised" | "sane"): string[] {
  return figures
    .filter((figure) => {
      const isHeld =
        figure.is === "at least" ? figure.value >= figure[bound] : figure.value <= figure[bound];
      return !isHeld;
    })
    .map((figure) => `${formatFigure(figure)}, and must be ${figure.is} ${figure[bound]}`);
}

export function formatFigure({ name, value, unit }: Figure): string {
  const digits = Math.abs(value) < 10 ? 2 : 0;
  return `${name} ${value.toFixed(digits)}${unit === "" ? "" : ` ${unit}`}`;
}

/** A share of what it is compared with. */
export function share(name: string, value: number, promised: number, sane: number): Figure {
  return { name, value, unit: "", is: "at least", promised, sane };
}

/** A multiple of what it is compared with. */
export function multiple(name: string, value: number, promised: number, sane: number): Figure {
  return { name, value, unit: "", is: "at most", promised, sane };
}

export function milliseconds(name: string, value: number, promised: number, sane: number): Figure {
  return { name, value, unit: "ms", is: "at most", promised, sane };
}

/** Memory above what it was, against the bound of what was queued and what is allowed on top. */
export function memory(bytes: number, queueMiB: number): Figure {
  const promised = queueMiB + 8;
  return {
    name: "memory +",
    value: bytes / 2 ** 20,
    unit: "MiB",
    is: "at most",
    promised,
    sane: promised + 24,
  };
}

/** How many lines one cause was logged with, above one for each second that began. */
export function excessLines(log: string, ms: number): number {
  const counts = new Map<string, number>();
  for (const line of log.split("\n")) {
    if (line === "" || line.includes("handle_request")) continue; // a client's requests are all logged
    const cause = line
      .slice(line.indexOf(" "))
      .replace(/ \(and \d+ more like it\)| (error|count)=.*/g, "");
    counts.set(cause, (counts.get(cause) ?? 0) + 1);
  }
  return Math.max(0, Math.max(0, ...counts.values()) - Math.ceil(ms / 1_000) - 1);
}

export function logLines(excess: number): Figure {
  return {
    name: "log lines too many",
    value: excess,
    unit: "",
    is: "at most",
    promised: 0,
    sane: 0,
  };
}

/** The middle of some numbers. */
export function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[numbers.length >> 1] ?? Number.NaN;
}

/** The number that so large a part of the others is below. */
export function percentile(numbers: readonly number[], part: number): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length * part)] ?? Number.NaN;
}

/** @throws if it is not so: what must be exact */
export function demand(isSo: boolean, what: string, found?: unknown): asserts isSo {
  if (isSo) return;
  throw new Error(`${what}${found === undefined ? "" : `, and there is ${JSON.stringify(found)}`}`);
}
