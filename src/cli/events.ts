// `events`: what has happened, one line for each, and what happens from now on.

import type { EventInfo } from "../protocol/info.ts";
import { escapeText } from "../log.ts";
import { queryOf } from "./query.ts";
import { Reader } from "./reader.ts";
import { nameOf, namesOf, type Session } from "./session.ts";
import { paint } from "./table.ts";
import { crashesWhole, tell } from "./telling.ts";
import { formatMoment, isoTime } from "./words.ts";

export async function events(session: Session): Promise<void> {
  const info = await session.info();
  const names = namesOf(info);
  const query = queryOf(
    session,
    session.chosen(info).map(({ id }) => id),
  );
  const client = await session.newClient();
  const stream = client.events(query);
  const reader = new Reader(session, client);
  const batches = session.isJson ? stream.batches() : crashesWhole(stream.batches());
  for await (const batch of batches) {
    for (const { id, name } of batch) if (id !== null && name !== null) names.set(id, name);
    const lines = session.isJson
      ? batch.map((event) => JSON.stringify(eventDocument(event)))
      : tell(batch, nameOf(names)).map(({ time, text, isBad }) => {
          const moment = paint(session.colour, "2", formatMoment(time));
          return `${moment}  ${paint(session.colour && isBad, "31", escapeText(text))}`;
        });
    await session.terminal.write(lines.map((line) => `${line}\n`).join(""));
  }
  if (query.follow) await reader.ended("Lost the orchestrator while following events");
}

/** An event as programs read it. */
export function eventDocument(event: EventInfo): Record<string, unknown> {
  return { ...event, time: isoTime(event.time) };
}
