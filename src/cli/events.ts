// `events`: what has happened, one line for each, and what happens from now on.

import type { EventInfo } from "../protocol/info.ts";
import { showJson } from "../json.ts";
import { MAX_QUERY_ITEMS } from "../limits.ts";
import { escapeText } from "../log.ts";
import type { EventQuery } from "../protocol.ts";
import { queryOf } from "./query.ts";
import { Reader } from "./reader.ts";
import { nameOf, namesOf, type Session } from "./session.ts";
import { paint } from "./table.ts";
import { crashesWhole, tellShort, type Told } from "./telling.ts";
import { formatMoment, isoTime } from "./words.ts";

export async function events(session: Session): Promise<void> {
  const info = await session.info();
  const names = namesOf(info);
  const query = queryOf(
    session,
    session.chosen(info).map(({ id }) => id),
  );
  const show = async (batch: readonly EventInfo[], most?: number): Promise<void> => {
    for (const { id, name } of batch) if (id !== null && name !== null) names.set(id, name);
    const lines = session.isJson
      ? batch.map((event) => showJson(eventDocument(event)))
      : tellShort(batch, nameOf(names), session.terminal.columns).map((told) =>
          lineOf(told, session.colour),
        );
    const shown = most === undefined ? lines : lines.slice(-most);
    await session.terminal.write(shown.map((line) => `${line}\n`).join(""));
  };
  let rest: Partial<EventQuery> = query;
  const { last, follow } = query;
  if (!session.isJson && last !== undefined && last > 0) {
    // Lines are asked for, and one of them tells at most two events.
    const most = Math.min(2 * last, MAX_QUERY_ITEMS);
    const past = (await session.newClient()).events({ ...query, last: most, follow: false });
    const batch = await Array.fromAsync(past);
    await show(batch, last);
    if (!follow) return;
    rest = { ...query, last: undefined, after: batch.at(-1)?.seq };
  }
  const client = await session.newClient();
  const reader = new Reader(session, client);
  const stream = client.events(rest).batches();
  for await (const batch of session.isJson ? stream : crashesWhole(stream)) await show(batch);
  if (follow) await reader.ended("Lost the orchestrator while following events");
}

function lineOf({ time, text, isBad }: Told, colour: boolean): string {
  const moment = paint(colour, "2", formatMoment(time));
  return `${moment}  ${paint(colour && isBad, "31", escapeText(text))}`;
}

/** An event as programs read it. */
export function eventDocument(event: EventInfo): Record<string, unknown> {
  return { ...event, time: isoTime(event.time) };
}
