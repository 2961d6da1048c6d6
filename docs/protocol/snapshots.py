#!/usr/bin/env python3
"""Checkpointing and restore as an executable model: snapshots and checkpoint records of several owners in turn,
where a superseded owner's writes land late. The events themselves are taken as right (model.py is about those).

After every take-over, and at the end, the state restored from snapshots, checkpoint record and events must be the log's.

  snapshots.py                  the rules as they are
  snapshots.py --break NAME     one rule off: the judge must notice
     key      snapshots keyed by aggregate id alone
     dirty    a checkpoint writes what this owner changed itself, not what it replayed
     clear    a new owner clears the keys of earlier epochs at once
     skip     events at or below the snapshot's version are applied again
     ids      command ids are not part of a checkpoint
"""
import argparse, random, sys
ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument('--runs', type=int, default=5000); ap.add_argument('--steps', type=int, default=200)
ap.add_argument('--seed', type=int, default=1); ap.add_argument('--break', dest='brk', default='')
A = ap.parse_args(); OFF = A.brk; AGGREGATES = 4

class Topic:
    """A compacted topic: what a reader finds is the last value of each key."""
    def __init__(s): s.records = []
    def table(s):
        t = {}
        for k, v in s.records: t[k] = v
        return {k: v for k, v in t.items() if v is not None}

class Owner:
    def __init__(s, epoch, state, ids, offset): s.epoch, s.state, s.ids, s.offset, s.changed, s.wire = epoch, state, ids, offset, set(), []

def key(aggregate, epoch): return ('state', aggregate) if OFF == 'key' else ('state', aggregate, epoch)

def restore(log, topic):
    """-> (states {aggregate: (version, last offset)}, known command ids, checkpoint offset)"""
    table = topic.table(); start = max((v for k, v in table.items() if k[0] == 'checkpoint'), default=0)
    state = {}
    for k, v in table.items():
        if k[0] == 'state' and v[0] > state.get(k[1], (0, -1))[0]: state[k[1]] = v
    ids = {c for k, v in table.items() if k[0] == 'ids' for c in v}
    for off in range(start, len(log)):
        aggregate, version, command = log[off]; have = state.get(aggregate, (0, -1))[0]; ids.add(command)
        if version <= have and OFF != 'skip': continue
        state[aggregate] = (have + 1, off)
    return state, ids, start

def wrong(log, topic):
    state, ids, _ = restore(log, topic); true = {}
    for aggregate, version, _ in log: true[aggregate] = version
    for aggregate, version in true.items():
        if state.get(aggregate, (0,))[0] != version: return f'aggregate {aggregate} restored at {state.get(aggregate, (0,))[0]}, the log has {version}'
    if ids != {c for _, _, c in log}: return 'a command id was forgotten'

def checkpoint(owner, log, topic):
    end = len(log)
    due = owner.changed if OFF == 'dirty' else {a for a, (_, last) in owner.state.items() if last >= owner.offset}
    for a in due:
        owner.wire.append((key(a, owner.epoch), owner.state[a], None))
        for k in topic.table():                                       # older epochs' keys, once the newer one has landed
            if k[0] == 'state' and k[1] == a and len(k) == 3 and k[2] < owner.epoch: owner.wire.append((k, None, None))
    if OFF != 'ids': owner.wire.append((('ids', owner.offset, owner.epoch), tuple(c for _, _, c in log[owner.offset:end]), None))
    owner.wire.append((('checkpoint', owner.epoch), end, None)); owner.offset, owner.changed = end, set()

def run(seed):
    random.seed(seed); log, topic, owner, wires, command = [], Topic(), None, [], 0
    for _ in range(A.steps):
        x = random.random()
        if owner is None or x < .03:                                   # take-over; what the old owner sent still lands
            why = wrong(log, topic)
            if why: return why
            state, ids, start = restore(log, topic); owner = Owner(owner.epoch + 1 if owner else 1, state, ids, start); wires.append(owner.wire)
            if OFF == 'clear':
                for k in topic.table():
                    if k[0] == 'state' and k[2] < owner.epoch: owner.wire.append((k, None, None))
        elif x < .45:
            a = random.randrange(AGGREGATES); version = owner.state.get(a, (0, -1))[0] + 1; command += 1
            owner.state[a] = (version, len(log)); owner.changed.add(a); log.append((a, version, command))
        elif x < .55: checkpoint(owner, log, topic)
        elif x < .57 and len(wires) > 1: random.choice(wires[:-1]).clear()       # the rest of a dead owner's messages is lost
        else:
            live = [w for w in wires if w]
            if live: k, v, _ = random.choice(live).pop(0); topic.records.append((k, v))
    return wrong(log, topic)

bad = [(s, why) for s in range(A.seed, A.seed + A.runs) if (why := run(s))]
print(f'{A.runs} runs, {len(bad)} bad' + (f'; first: seed {bad[0][0]}: {bad[0][1]}' if bad else ''))
sys.exit(1 if bad else 0)
