// `export`: everything that the daemon holds, as a manifest.

import { showJson } from "../../json.ts";
import { exportManifest, showYaml } from "../../manifest/export.ts";
import type { Session } from "../session.ts";
import { presentOf } from "./there.ts";

export async function exportAll(session: Session): Promise<void> {
  const toml = exportManifest(await presentOf(session));
  const format = session.isJson ? "json" : (session.values.get("--format") ?? "toml");
  if (format === "toml") {
    await session.terminal.write(toml);
    return;
  }
  const value: unknown = Bun.TOML.parse(toml);
  await session.print(
    format === "json" ? showJson(value, session.isJson ? undefined : 2) : showYaml(value),
  );
}
