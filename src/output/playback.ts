// The output of several instances, read back from the disk as one sequence in order of time, and
// followed from there. Who reads slowly lags behind on the disk, not in memory.

import { messageChain } from "../errors.ts";
import type { HistoryFiles } from "./history.ts";
import type { InstanceId } from "../model.ts";
import type { Output } from "../output.ts";
import {
  type Entry,
  matches,
  mergeByTime,
  type OutputQuery,
  type Place,
  recordsBetween,
  select,
} from "./recording.ts";

/** Whole lines of one instance that were written together. */
export interface PlayedEntry extends Entry {
  readonly id: InstanceId;
}

/** One instance that is read. */
interface Track {
  readonly id: InstanceId;
  readonly query: OutputQuery;
  readonly output: Output;
  readonly files: HistoryFiles;
  /** Behind what has been handed out. */
  place: Place;
  /** The last look came to nothing, and that was told. */
  isFaulty: boolean;
}

/** Reads what is there now. `last` counts the lines of each instance. */
export async function* playBack(
  outputs: ReadonlyMap<InstanceId, Output>,
  query: OutputQuery,
): AsyncGenerator<PlayedEntry, void, void> {
  const { tracks, faults } = await tracksOf(outputs, query);
  yield* faults;
  yield* playHistory(tracks);
}

/**
 * Reads what is there now, then what comes, without a gap between them and nothing twice, until
 * `signal` or until every instance is removed. What comes is in order of time for each instance.
 */
export async function* playOn(
  outputs: ReadonlyMap<InstanceId, Output>,
  query: OutputQuery,
  signal: AbortSignal,
): AsyncGenerator<PlayedEntry, void, void> {
  const { tracks, faults } = await tracksOf(outputs, query);
  const changed: Set<Track> = new Set();
  let wake = (): void => {};
  const stops = tracks.map((track) =>
    track.files.watch(() => {
      changed.add(track);
      wake();
    }),
  );
  const onAbort = (): void => wake();
  signal.addEventListener("abort", onAbort);
  try {
    for (const track of tracks) changed.add(track);
    yield* faults;
    yield* playHistory(tracks);
    while (!signal.aborted && tracks.some(({ files }) => !files.isGone)) {
      if (changed.size === 0) await new Promise<void>((resolve) => (wake = resolve));
      const ready = [...changed];
      changed.clear();
      yield* mergeByTime(ready.map(playNew));
    }
  } finally {
    signal.removeEventListener("abort", onAbort);
    for (const stop of stops) stop();
  }
}

/** Instances that keep nothing have no track, and those whose files cannot be found tell why not. */
async function tracksOf(
  outputs: ReadonlyMap<InstanceId, Output>,
  query: OutputQuery,
): Promise<{ tracks: Track[]; faults: PlayedEntry[] }> {
  const faults: PlayedEntry[] = [];
  const histories = [...outputs].map(async ([id, output]): Promise<Track[]> => {
    try {
      const files = await output.history();
      if (files === undefined) return [];
      return [{ id, query, output, files, place: files.end, isFaulty: false }];
    } catch (error) {
      faults.push(faultEntry(id, output, error));
      return [];
    }
  });
  return { tracks: (await Promise.all(histories)).flat(), faults };
}

function playHistory(tracks: readonly Track[]): AsyncGenerator<PlayedEntry, void, void> {
  return mergeByTime(
    tracks.map((track) => ofTrack(track, select(track.files, track.query, track.place))),
  );
}

/** What has come since the last time. */
async function* playNew(track: Track): AsyncGenerator<PlayedEntry, void, void> {
  const { files, query, place } = track;
  track.place = files.end;
  for await (const entry of ofTrack(track, recordsBetween(files, place, track.place))) {
    if (matches(entry, query)) yield entry;
  }
}

/** Entries of one instance. What cannot be read is told in its place, and keeps nothing from others. */
async function* ofTrack(
  track: Track,
  entries: AsyncGenerator<Entry, void, void>,
): AsyncGenerator<PlayedEntry, void, void> {
  const { id, output } = track;
  try {
    for await (const entry of entries) {
      track.isFaulty = false;
      yield { ...entry, id, lines: () => entry.lines().catch(faultLine) };
    }
  } catch (error) {
    if (!track.isFaulty) yield faultEntry(id, output, error);
    track.isFaulty = true;
  }
}

function faultEntry(id: InstanceId, output: Output, error: unknown): PlayedEntry {
  const lines = (): Promise<Buffer> => Promise.resolve(faultLine(error));
  return { id, time: output.now(), stream: "note", lines };
}

function faultLine(error: unknown): Buffer {
  const reason = messageChain(error).join(": ");
  return Buffer.from(`[veecle-orchestrator: output cannot be read: ${reason}]\n`);
}
