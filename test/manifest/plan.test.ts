import { describe, expect, test } from "bun:test";

import { formatPlan } from "../../src/manifest/describe.ts";
import {
  endsRunning,
  isEmpty,
  type Plan,
  planChanges,
  planRemoval,
  type Step,
} from "../../src/manifest/plan.ts";
import type { Present } from "../../src/manifest/present.ts";
import { formatLink, type Manifest } from "../../src/manifest/wanted.ts";
import { load } from "../support/manifest.ts";
import {
  hashOf,
  ModelDaemon,
  presentInstance,
  presentLink,
  randomManifest,
  randomPresent,
} from "../support/present.ts";
import { property } from "../support/random.ts";

/** A manifest called `rig`, whose instances without a path are those of `presentInstance`. */
function rig(text: string): Manifest {
  const whole = text.replaceAll(
    /^\[instances\.(\S+)\]$(?!\npath)/gm,
    '[instances.$1]\npath = "/bin/$1"',
  );
  return load({ "a.toml": `name = "rig"\n${whole}` });
}

const NOTHING: Present = { instances: [], links: [] };

function planOf(text: string, present: Present, adopt = false): Plan {
  return planChanges(rig(text), present, { hash: hashOf, adopt });
}

function formatStep(step: Step): string {
  if (step.kind === "link" || step.kind === "unlink")
    return `${step.kind} ${formatLink(step.link)}`;
  return `${step.kind} ${"wanted" in step ? step.wanted.settings.name : step.name}`;
}

describe("planChanges() says", () => {
  const pong = presentInstance("pong");

  test.each<[string, string, Present, ...string[]]>([
    ["nothing of nothing", "", NOTHING],
    ["what is added", "[instances.a]", NOTHING, "+ add instance a (/bin/a)"],
    [
      "how it is added",
      "[instances.a]\ncopy = true\nprivileged = true\nstart = false",
      NOTHING,
      "+ add instance a (/bin/a, copy, privileged, not started)",
    ],
    [
      "what is the same",
      "[instances.pong]",
      { instances: [pong], links: [] },
      "= same instance pong",
    ],
    ["what is removed", "", { instances: [pong], links: [] }, "- remove instance pong (running)"],
    [
      "what is changed as it runs",
      '[instances.pong]\nrestart = "always"\nrestart_delay = "1s"\nstop_grace = "1m"\nstop_signal = "SIGTERM"',
      { instances: [pong], links: [] },
      "~ change instance pong: restart no → always, restart_delay 100ms → 1s, stop_signal SIGINT → SIGTERM, stop_grace 5s → 1m",
    ],
    [
      "what takes a restart",
      '[instances.pong]\nargs = ["-v", "a b"]\ncwd = "/x"\npriority = "low"\nprivileged = true',
      { instances: [pong], links: [] },
      '~ change instance pong: args none → "-v" "a b", cwd the daemon\'s → /x, priority the daemon\'s → low, privileged false → true (restart)',
    ],
    [
      "of variables only the names",
      '[instances.pong]\nenv = { A = "secret", B = "secret", D = "1" }',
      {
        instances: [presentInstance("pong", { settings: { env: { B: "old", C: "old", D: "1" } } })],
        links: [],
      },
      "~ change instance pong: env.B changed, env.C removed, env.A added (restart)",
    ],
    [
      "that a program is another",
      '[instances.pong]\npath = "/opt/pong"',
      { instances: [pong], links: [] },
      "~ change instance pong: path /bin/pong → /opt/pong (restart)",
    ],
    [
      "that a copied program has other bytes",
      "[instances.pong]\ncopy = true",
      { instances: [presentInstance("pong", { hash: hashOf("/old") })], links: [] },
      `~ change instance pong: path ${hashOf("/old").slice(0, 12)} → ${hashOf("/bin/pong").slice(0, 12)} (restart)`,
    ],
    [
      "nothing of where a copied program came from",
      "[instances.pong]\ncopy = true",
      {
        instances: [presentInstance("pong", { hash: hashOf("/bin/pong"), path: "/x" })],
        links: [],
      },
      "= same instance pong",
    ],
    [
      "that a program is copied from now on",
      "[instances.pong]\ncopy = true",
      { instances: [pong], links: [] },
      "~ change instance pong: copy false → true (restart)",
    ],
    [
      "no restart of what does not run",
      '[instances.pong]\nargs = ["-v"]\nstart = false',
      { instances: [presentInstance("pong", { state: "stopped" })], links: [] },
      '~ change instance pong: args none → "-v"',
    ],
    [
      "what is only started",
      "[instances.pong]",
      { instances: [presentInstance("pong", { state: "stopped" })], links: [] },
      "~ start instance pong (stopped)",
    ],
    [
      "nothing of what has done its work",
      "[instances.pong]",
      { instances: [presentInstance("pong", { state: "finished" })], links: [] },
      "= same instance pong",
    ],
    [
      "that it does other work now",
      '[instances.pong]\nargs = ["-v"]',
      { instances: [presentInstance("pong", { state: "finished" })], links: [] },
      '~ change instance pong: args none → "-v", start finished → running',
    ],
    [
      "nothing of what runs and need not",
      "[instances.pong]\nstart = false",
      { instances: [pong], links: [] },
      "= same instance pong",
    ],
    [
      "nothing of what is somebody else's and as it shall be",
      "[instances.pong]",
      { instances: [presentInstance("pong", { owner: null })], links: [] },
      "= same instance pong",
    ],
    [
      "what stands in the way",
      '[instances.pong]\nrestart = "always"\n[instances.ping]\n[instances.more]',
      {
        instances: [
          presentInstance("pong", { owner: null }),
          presentInstance("ping", { owner: "/b.toml", state: "stopped" }),
        ],
        links: [],
      },
      "! cannot change instance pong: it belongs to no manifest, and differs: restart no → always",
      '! cannot change instance ping: it belongs to "/b.toml", and differs: start stopped → running',
      "+ add instance more (/bin/more)",
    ],
    [
      "nothing of what it does not name and does not own",
      "",
      {
        instances: [presentInstance("pong", { owner: null })],
        links: [presentLink("pong", "T", "pong", "/b")],
      },
    ],
    [
      "what becomes of links",
      '[instances.pong]\n[[links]]\ntype = "A"\nto = "pong"\nqueue = 7\non_full = "block"\n[[links]]\ntype = "B"\nto = "pong"\nqueue = "1KiB"\n[[links]]\nfrom = "pong"\ntype = "C"\nto = "pong"\n[[links]]\ntype = "D"\nto = "[::1]:7"\n[[links]]\ntype = "E"\nto = "pong"\nqueue = 7',
      {
        instances: [pong],
        links: [
          presentLink(undefined, "B", "pong"),
          presentLink("pong", "C", "pong", null),
          presentLink(undefined, "Z", "pong"),
          presentLink(undefined, "E", "pong", null),
        ],
      },
      "= same instance pong",
      "+ add link A to pong (queue 7, block)",
      "~ change link B to pong: queue 4MiB → 1KiB",
      "= same link C from pong to pong",
      "+ add link D to [::1]:7",
      "! cannot change link E to pong: it belongs to no manifest, and differs: queue 4MiB → 7",
      "- remove link Z to pong",
    ],
    [
      "that the links of others go with an instance",
      "[instances.ping]",
      {
        instances: [presentInstance("ping"), pong],
        links: [presentLink("ping", "T", "pong", null), presentLink("ping", "T", "ping", null)],
      },
      "= same instance ping",
      "- remove instance pong (running)",
      "- remove link T from ping to pong (of no manifest)",
    ],
  ])("%s", (_, text, present, ...lines) => {
    const plan = planOf(text, present);
    expect(formatPlan(plan)).toEqual(lines);
    expect(isEmpty(plan)).toBe(lines.every((line) => line.startsWith("=")));
    if (lines.some((line) => line.startsWith("!"))) expect(plan.steps).toEqual([]);
  });

  test("what becomes the manifest's own, if that is asked for", () => {
    const present: Present = {
      instances: [
        presentInstance("pong", { owner: null }),
        presentInstance("ping", { owner: "/b" }),
      ],
      links: [presentLink(undefined, "T", "pong", null), presentLink(undefined, "U", "pong", null)],
    };
    const text =
      '[instances.pong]\nrestart = "always"\n[instances.ping]\n[[links]]\ntype = "T"\nto = "pong"';
    const plan = planOf(text, present, true);
    expect(formatPlan(plan)).toEqual([
      "~ change instance pong: restart no → always, owner nobody → rig",
      "~ change instance ping: owner /b → rig",
      "~ change link T to pong: owner nobody → rig",
    ]);
    expect(plan.steps.map(formatStep)).toEqual(["change pong", "change ping", "link T to pong"]);
  });
});

describe("planChanges() orders", () => {
  test("starts by after, and otherwise as in the file; ends in reverse", () => {
    const text = ["a", "b", "c", "d"].map((name) => {
      return `[instances.${name}]\nargs = ["new"]\nafter = ${{ a: '["d"]', b: "[]", c: '["b"]', d: '["c"]' }[name]}`;
    });
    const present: Present = {
      instances: ["old1", "a", "b", "c", "old2"].map((name) => presentInstance(name)),
      links: [presentLink("old1", "T", "a"), presentLink("a", "T", "b")],
    };
    const link = '[[links]]\nfrom = "d"\ntype = "T"\nto = "a"';
    expect(planOf([...text, link].join("\n"), present).steps.map(formatStep)).toEqual([
      ...["stop old2", "stop old1", "stop a", "stop c", "stop b"],
      ...["unlink T from old1 to a", "unlink T from a to b"],
      ...["remove old2", "remove old1"],
      ...["change b", "change c", "add d", "change a"],
      "link T from d to a",
      ...["start b", "start c", "start d", "start a"],
    ]);
  });

  test("waits for what makes an instance ready", () => {
    const { steps } = planOf("[instances.a]\nready = { port = 80 }", NOTHING);
    expect(steps.at(-1)).toEqual({ kind: "start", name: "a", ready: { port: 80 } });
  });
});

describe("planRemoval()", () => {
  test("removes all that is owned, and nothing else, in the reverse order of starting", () => {
    const manifest = rig(
      '[instances.a]\nafter = ["b"]\n[instances.b]\n[instances.c]\nafter = ["a"]',
    );
    const present: Present = {
      instances: [
        ...["a", "b", "c", "gone"].map((name) => presentInstance(name)),
        presentInstance("idle", { state: "stopped" }),
        presentInstance("other", { owner: null }),
      ],
      links: [presentLink("other", "T", "a", null), presentLink("other", "T", "other", null)],
    };
    const { steps, instances } = planRemoval(manifest, present);
    expect(steps.map(formatStep)).toEqual([
      ...["stop gone", "stop c", "stop a", "stop b"],
      "unlink T from other to a",
      ...["remove idle", "remove gone", "remove c", "remove a", "remove b"],
    ]);
    expect(
      instances
        .filter(endsRunning)
        .map(({ name }) => name)
        .toSorted(),
    ).toEqual(["a", "b", "c", "gone"]);
  });
});

describe("A plan", () => {
  const only = (present: Present, isOurs: boolean): Present => ({
    instances: present.instances.filter(({ owner }) => (owner === "rig") === isOurs),
    links: present.links.filter(({ owner }) => (owner === "rig") === isOurs),
  });

  property("can be carried out, and then there is nothing to do", 1_000, (random) => {
    const before = randomPresent(random);
    const manifest = randomManifest(random, before);
    const adopt = random.chance(0.5);
    const plan = planChanges(manifest, before, { hash: hashOf, adopt });
    const isRefused = [...plan.instances, ...plan.links].some(({ kind }) => kind === "conflict");
    expect(isRefused && adopt).toBe(false);
    if (isRefused) {
      expect(plan.steps).toEqual([]);
      return;
    }
    expect(plan.steps.length === 0).toBe(isEmpty(plan));
    const daemon = new ModelDaemon("rig", before);
    for (const step of plan.steps) daemon.apply(step);
    const again = planChanges(manifest, daemon.present, { hash: hashOf });
    expect(formatPlan(again).filter((line) => !line.startsWith("="))).toEqual([]);
    expect(again.steps).toEqual([]);
    expect(again.instances.map(({ name }) => name)).toEqual(
      manifest.instances.map(({ settings }) => settings.name),
    );
    if (adopt) return;
    const gone = new Set(plan.links.flatMap(({ kind, name }) => (kind === "remove" ? name : [])));
    const others = only(before, false);
    expect(only(daemon.present, false)).toEqual({
      ...others,
      links: others.links.filter((link) => !gone.has(formatLink(link))),
    });
  });

  property("that stops half way is gone on with", 500, (random) => {
    const before = randomPresent(random);
    const manifest = randomManifest(random, before);
    const options = { hash: hashOf, adopt: true };
    const daemon = new ModelDaemon("rig", before);
    const { steps } = planChanges(manifest, before, options);
    for (const step of steps.slice(0, random.int(0, steps.length))) daemon.apply(step);
    for (const step of planChanges(manifest, daemon.present, options).steps) daemon.apply(step);
    expect(planChanges(manifest, daemon.present, options).steps).toEqual([]);
  });

  property(
    "starts nothing before what it comes after, and ends nothing before what comes after it",
    500,
    (random) => {
      const before = randomPresent(random);
      const manifest = randomManifest(random, before);
      const { steps } = planChanges(manifest, before, { hash: hashOf, adopt: true });
      const orderOf = (kind: "start" | "stop"): string[] =>
        steps.flatMap((step) => (step.kind === kind ? step.name : []));
      for (const { settings, after } of manifest.instances) {
        for (const other of after) {
          for (const [order, first, second] of [
            [orderOf("start"), other, settings.name],
            [orderOf("stop"), settings.name, other],
          ] as const) {
            if (!order.includes(first) || !order.includes(second)) continue;
            expect(order.indexOf(first)).toBeLessThan(order.indexOf(second));
          }
        }
      }
    },
  );

  property("of removal leaves nothing that was owned, and all else", 500, (random) => {
    const before = randomPresent(random);
    const plan = planRemoval(randomManifest(random, before), before);
    const daemon = new ModelDaemon("rig", before);
    for (const step of plan.steps) daemon.apply(step);
    expect(only(daemon.present, true)).toEqual(NOTHING);
    expect(daemon.present.instances).toEqual(only(before, false).instances);
  });
});
