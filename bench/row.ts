// What a row of the table is: what is measured, how much of it, and what it has to reach.

import type { Place, Round, Stage, StageKind } from "./stage.ts";

/** One figure of a row, read off a round. */
export interface Figure {
  readonly name: string;
  readonly unit: "msg/s" | "B/s" | "trips/s" | "µs" | "ms" | "ns/line" | "MiB" | "%" | "times";
  /** What the ratio to the baseline must reach: at least for rates, at most for others. */
  readonly target?: number;
  /** What the figure itself must not exceed. */
  readonly limit?: number;
  read(round: Round): number;
}

export interface Row {
  /** By which it is chosen on the command line. */
  readonly key: string;
  readonly figures: readonly Figure[];
  /** Work of one round for each producer: in full, and at smoke size. */
  readonly count: number;
  readonly smokeCount: number;
  /** Work that goes before each round and is not timed; a multiple of four. */
  readonly runIn: number;
  /** How often it is done, if not as often as others. */
  readonly rounds?: number;
  /** Only run if it is named. */
  readonly isOnRequest?: boolean;
  /** A program of others that it needs, and where that is, if it is installed. */
  readonly needs?: { readonly program: string; readonly path: string | undefined };
  /** Sets up a stage; undefined if the row has none of that kind. */
  open(kind: StageKind, place: Place, isSmoke: boolean): Promise<Stage> | undefined;
}

/** A figure is better the larger it is, or the smaller. */
export function isRate(figure: Figure): boolean {
  return figure.unit.endsWith("/s");
}
