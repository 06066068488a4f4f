import { describe, expect, test } from "bun:test";

import { formatPlan } from "../../src/manifest/describe.ts";
import { exportManifest, showYaml } from "../../src/manifest/export.ts";
import { isEmpty, planChanges } from "../../src/manifest/plan.ts";
import type { ProgramSettings } from "../../src/settings.ts";
import { load } from "../support/manifest.ts";
import { hashOf, presentInstance, presentLink, randomPresent } from "../support/present.ts";
import { property } from "../support/random.ts";

describe("exportManifest()", () => {
  test("writes what is not the default", () => {
    const text = exportManifest({
      instances: [
        presentInstance("ping", {
          hash: "12ab",
          path: "/copies/12ab",
          state: "stopped",
          settings: {
            args: ["-v", 'a "b"\n$c'],
            env: { RUST_LOG: "info", "a.b": "é" },
            cwd: "/run",
            restart: "always",
            restartDelayMs: 1_500,
            stopSignal: "SIGTERM",
            stopGraceMs: 60_000,
            priority: "low",
            privileged: true,
          },
        }),
        presentInstance("a.b"),
      ],
      links: [
        presentLink("ping", "demo::Ping", "a.b", null, { onFull: "block", maxBytes: 1024 }),
        { ...presentLink(undefined, "T", ""), to: { kind: "remote", host: "::1", port: 7 } },
      ],
    });
    expect(text).toBe(`[instances.ping]
path = "/copies/12ab"
copy = true
args = ["-v", "a \\"b\\"\\n$$c"]
env = { RUST_LOG = "info", "a.b" = "é" }
cwd = "/run"
restart = "always"
restart_delay = "1500ms"
stop_signal = "SIGTERM"
stop_grace = "1m"
priority = "low"
privileged = true
start = false

[instances."a.b"]
path = "/bin/a.b"

[[links]]
from = "ping"
type = "demo::Ping"
to = "a.b"
queue = "1KiB"
on_full = "block"

[[links]]
type = "T"
to = "[::1]:7"
`);
  });

  test("writes nothing of nothing", () => {
    expect(exportManifest({ instances: [], links: [] })).toBe("# no instances and no links\n");
  });

  property("writes a manifest for which there is nothing to do", 300, (random) => {
    const present = randomPresent(random);
    const text = exportManifest(present);
    const manifest = load({ "a.toml": text });
    const byName = (all: readonly { settings: ProgramSettings }[]): ProgramSettings[] =>
      all.map(({ settings }) => settings).toSorted((a, b) => (a.name < b.name ? -1 : 1));
    expect(byName(manifest.instances)).toEqual(byName(present.instances));
    // A stranger's file, and one that owns a part of it.
    for (const owner of [manifest.owner, "rig"]) {
      const plan = planChanges({ ...manifest, owner }, present, { hash: hashOf });
      expect(formatPlan(plan).filter((line) => !line.startsWith("="))).toEqual([]);
      expect(isEmpty(plan)).toBe(true);
    }
  });
});

describe("what is exported drives no terminal (S10):", () => {
  const STRANGE = [
    "\u009b",
    "\u202e",
    "\x7f",
    "\x01",
    "\x1b",
    "\\",
    "\\x01",
    "0061",
    "a",
    "-",
    ": ",
    "\n",
  ];
  const UNSHOWN = /(?!\n)[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/u;

  property("YAML is read back", 500, (random) => {
    const value = { a: random.text(8, STRANGE), b: [random.text(4, STRANGE), 1, true, {}] };
    const text = showYaml(value);
    expect(text).not.toMatch(UNSHOWN);
    expect(Bun.YAML.parse(text)).toEqual(value);
  }); // prettier-ignore

  property("TOML is read back", 500, (random) => {
    const path = `/x${random.text(8, STRANGE)}`;
    const present = { instances: [presentInstance("a", { path })], links: [] };
    const text = exportManifest(present);
    expect(text).not.toMatch(UNSHOWN);
    expect(load({ "a.toml": text }).instances[0]).toMatchObject({ path });
  });
});
