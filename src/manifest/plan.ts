// What a manifest asks for, compared with what a daemon holds: the differences, and the steps that
// end them.
//
// Touches nothing that belongs to somebody else: where that is in the way, there is a conflict, and a
// plan with a conflict has no steps.

import type { InstanceId } from "../model.ts";
import { startOrder } from "./order.ts";
import {
  type Difference,
  type HashFile,
  instanceDifferences,
  linkDifferences,
  needsRestart,
  ownerDifference,
  type Present,
  type PresentInstance,
  type PresentLink,
} from "./present.ts";
import type { Readiness } from "./shape.ts";
import {
  formatLink,
  linkKey,
  type Manifest,
  type NamedLink,
  type WantedInstance,
} from "./wanted.ts";

/** What becomes of an instance. */
export type InstanceChange =
  | { readonly kind: "add"; readonly name: string; readonly wanted: WantedInstance }
  | {
      readonly kind: "change";
      readonly name: string;
      readonly wanted: WantedInstance;
      readonly present: PresentInstance;
      readonly differences: readonly Difference[];
      /** Whether it runs, and has to end to take the change. */
      readonly restart: boolean;
      /** Whether it does not run, and shall. */
      readonly start: boolean;
    }
  | { readonly kind: "remove"; readonly name: string; readonly present: PresentInstance }
  | { readonly kind: "same"; readonly name: string }
  | Conflict;

/** What becomes of a link; its name is for people. */
export type LinkChange =
  | { readonly kind: "add"; readonly name: string; readonly wanted: NamedLink }
  | {
      readonly kind: "change";
      readonly name: string;
      readonly wanted: NamedLink;
      readonly differences: readonly Difference[];
    }
  /** One of another owner goes with an instance that it begins or ends at. */
  | { readonly kind: "remove"; readonly name: string; readonly present: PresentLink }
  | { readonly kind: "same"; readonly name: string }
  | Conflict;

/** Something is there that belongs to somebody else, and is not as it is wanted. */
export interface Conflict {
  readonly kind: "conflict";
  readonly name: string;
  readonly owner: string | null;
  readonly differences: readonly Difference[];
}

/** One thing to do. */
export type Step =
  | { readonly kind: "stop"; readonly name: string; readonly id: InstanceId }
  | { readonly kind: "unlink"; readonly link: NamedLink }
  | { readonly kind: "remove"; readonly name: string; readonly id: InstanceId }
  /** Gives it the program, the settings and the owner that are wanted; its id and links stay. */
  | { readonly kind: "change"; readonly id: InstanceId; readonly wanted: WantedInstance }
  /** Adds it, not running. */
  | { readonly kind: "add"; readonly wanted: WantedInstance }
  /** Makes the link, or gives the one that is there the settings and the owner that are wanted. */
  | { readonly kind: "link"; readonly link: NamedLink }
  /** Starts it, and goes on when it is ready. */
  | { readonly kind: "start"; readonly name: string; readonly ready: Readiness };

export interface Plan {
  readonly owner: string;
  readonly instances: readonly InstanceChange[];
  readonly links: readonly LinkChange[];
  /** In the order in which they are to be done. None: all is as wanted, or there is a conflict. */
  readonly steps: readonly Step[];
}

export interface PlanOptions {
  /** Asked only for programs that the daemon keeps a copy of. */
  readonly hash: HashFile;
  /** Whether what belongs to somebody else and is wanted here becomes the manifest's. */
  readonly adopt?: boolean;
}

/** Compares what a manifest asks for with what is there. */
export function planChanges(manifest: Manifest, present: Present, options: PlanOptions): Plan {
  const there = new Map(present.instances.map((instance) => [instance.settings.name, instance]));
  const wanted = new Set(manifest.instances.map(({ settings }) => settings.name));
  const instances = [
    ...manifest.instances.map((instance) => {
      return compareInstance(instance, there.get(instance.settings.name), manifest.owner, options);
    }),
    ...removals(present, manifest.owner, wanted),
  ];
  return finishPlan(manifest, instances, compareLinks(manifest, present, instances, options.adopt));
}

/** Removes all that a manifest owns, also what is no longer in its files. */
export function planRemoval(manifest: Manifest, present: Present): Plan {
  const instances = removals(present, manifest.owner, new Set());
  return finishPlan(
    manifest,
    instances,
    compareLinks({ ...manifest, links: [] }, present, instances, false),
  );
}

/** Whether everything is as it is wanted. */
export function isEmpty({ instances, links }: Plan): boolean {
  return [...instances, ...links].every(({ kind }) => kind === "same");
}

function removals(
  { instances }: Present,
  owner: string,
  wanted: ReadonlySet<string>,
): InstanceChange[] {
  return instances
    .filter((instance) => instance.owner === owner && !wanted.has(instance.settings.name))
    .map((instance) => ({ kind: "remove", name: instance.settings.name, present: instance }));
}

function compareInstance(
  wanted: WantedInstance,
  present: PresentInstance | undefined,
  owner: string,
  { hash, adopt }: PlanOptions,
): InstanceChange {
  const { name } = wanted.settings;
  if (present === undefined) return { kind: "add", name, wanted };
  const settings = instanceDifferences(present, wanted, hash);
  const isOld = needsRestart(settings);
  const start =
    wanted.start && (present.state === "stopped" || (present.state === "finished" && isOld));
  const differences = [
    ...settings,
    ...(start ? [{ key: "start", text: `${present.state} → running` }] : []),
    ...(adopt === true ? ownerDifference(present.owner, owner) : []),
  ];
  if (differences.length === 0) return { kind: "same", name };
  if (present.owner !== owner && adopt !== true) {
    return { kind: "conflict", name, owner: present.owner, differences };
  }
  const restart = isOld && present.state === "running";
  return { kind: "change", name, wanted, present, differences, restart, start };
}

function compareLinks(
  manifest: Manifest,
  present: Present,
  instances: readonly InstanceChange[],
  adopt: boolean | undefined,
): LinkChange[] {
  const there = new Map(present.links.map((link) => [linkKey(link), link]));
  const wanted = new Set(manifest.links.map(linkKey));
  const leaving = new Set(instances.flatMap(({ kind, name }) => (kind === "remove" ? name : [])));
  const isLeaving = ({ from, to }: NamedLink): boolean =>
    (from !== undefined && leaving.has(from)) || (to.kind === "instance" && leaving.has(to.name));
  return [
    ...manifest.links.map((link) => {
      return compareLink(link, there.get(linkKey(link)), manifest.owner, adopt);
    }),
    ...present.links
      .filter((link) => !wanted.has(linkKey(link)))
      .filter((link) => link.owner === manifest.owner || isLeaving(link))
      .map((link) => ({ kind: "remove", name: formatLink(link), present: link }) as const),
  ];
}

function compareLink(
  wanted: NamedLink,
  present: PresentLink | undefined,
  owner: string,
  adopt: boolean | undefined,
): LinkChange {
  const name = formatLink(wanted);
  if (present === undefined) return { kind: "add", name, wanted };
  const differences = [
    ...linkDifferences(present, wanted),
    ...(adopt === true ? ownerDifference(present.owner, owner) : []),
  ];
  if (differences.length === 0) return { kind: "same", name };
  return present.owner === owner || adopt === true
    ? { kind: "change", name, wanted, differences }
    : { kind: "conflict", name, owner: present.owner, differences };
}

function finishPlan(
  manifest: Manifest,
  instances: readonly InstanceChange[],
  links: readonly LinkChange[],
): Plan {
  const isRefused = [...instances, ...links].some(({ kind }) => kind === "conflict");
  const steps = isRefused ? [] : orderSteps(instances, links, startOrder(manifest.instances));
  return { owner: manifest.owner, instances, links, steps };
}

/**
 * First all that ends, in the reverse of the order of starting, then all that is stored, and last all
 * that starts: if something cannot be stored, nothing new runs yet.
 */
function orderSteps(
  instances: readonly InstanceChange[],
  links: readonly LinkChange[],
  order: readonly string[],
): Step[] {
  const rank = new Map(order.map((name, index) => [name, index]));
  const starting = instances.toSorted((a, b) => {
    // What the files do not name any more has no order, and comes last, so that it is first to end.
    return (rank.get(a.name) ?? order.length) - (rank.get(b.name) ?? order.length);
  });
  const ending = starting.toReversed();
  return [
    ...ending.flatMap((change): Step[] => (endsRunning(change) ? [stopOf(change)] : [])),
    ...links.flatMap((change): Step[] =>
      change.kind === "remove" ? [{ kind: "unlink", link: change.present }] : [],
    ),
    ...ending.flatMap((change): Step[] =>
      change.kind === "remove"
        ? [{ kind: "remove", name: change.name, id: change.present.id }]
        : [],
    ),
    ...starting.flatMap(storeSteps),
    ...links.flatMap((change): Step[] =>
      change.kind === "add" || change.kind === "change"
        ? [{ kind: "link", link: change.wanted }]
        : [],
    ),
    ...starting.flatMap(startSteps),
  ];
}

type Ending = Extract<InstanceChange, { kind: "remove" | "change" }>;

/** Whether a change ends a process. */
export function endsRunning(change: InstanceChange): change is Ending {
  if (change.kind === "remove") return change.present.state === "running";
  return change.kind === "change" && change.restart;
}

function stopOf({ name, present }: Ending): Step {
  return { kind: "stop", name, id: present.id };
}

function storeSteps(change: InstanceChange): Step[] {
  if (change.kind === "add") return [{ kind: "add", wanted: change.wanted }];
  if (change.kind !== "change" || change.differences.every(({ key }) => key === "start")) return [];
  return [{ kind: "change", id: change.present.id, wanted: change.wanted }];
}

function startSteps(change: InstanceChange): Step[] {
  const isStarting =
    (change.kind === "add" && change.wanted.start) ||
    (change.kind === "change" && (change.restart || change.start));
  return isStarting ? [{ kind: "start", name: change.name, ready: change.wanted.ready }] : [];
}
