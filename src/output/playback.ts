// The output of several instances, read back from the disk as one sequence in order of time, and
// followed from there. Who reads slowly lags behind on the disk, not in memory.

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
  readonly files: HistoryFiles;
  /** Behind what has been handed out. */
  place: Place;
}

/** Reads what is there now. `last` counts the lines of each instance. */
export async function* playBack(
  outputs: ReadonlyMap<InstanceId, Output>,
  query: OutputQuery,
): AsyncGenerator<PlayedEntry, void, void> {
  yield* playHistory(await tracksOf(outputs, query));
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
  const tracks = await tracksOf(outputs, query);
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

/** Instances that keep nothing have no track. @throws the system's error */
async function tracksOf(
  outputs: ReadonlyMap<InstanceId, Output>,
  query: OutputQuery,
): Promise<Track[]> {
  const histories = [...outputs].map(async ([id, output]) => ({
    id,
    files: await output.history(),
  }));
  return (await Promise.all(histories)).flatMap(({ id, files }) =>
    files === undefined ? [] : [{ id, query, files, place: files.end }],
  );
}

function playHistory(tracks: readonly Track[]): AsyncGenerator<PlayedEntry, void, void> {
  return mergeByTime(
    tracks.map(({ id, query, files, place }) => named(id, select(files, query, place))),
  );
}

/** What has come since the last time. */
async function* playNew(track: Track): AsyncGenerator<PlayedEntry, void, void> {
  const { id, files, query, place } = track;
  track.place = files.end;
  for await (const entry of named(id, recordsBetween(files, place, track.place))) {
    if (matches(entry, query)) yield entry;
  }
}

async function* named(
  id: InstanceId,
  entries: AsyncGenerator<Entry, void, void>,
): AsyncGenerator<PlayedEntry, void, void> {
  for await (const entry of entries) yield { ...entry, id };
}
