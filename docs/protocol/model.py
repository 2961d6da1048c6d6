#!/usr/bin/env python3
"""The write protocol as an executable model: one partition, random faults, a judge.

Several processes may all believe to own the partition. What a producer sends lands late, in order, as a prefix of what was
sent (idempotent producer, nothing dropped singly). Processes crash, give up, lose reports, are superseded. Clients send the
same command again, to any process, before or after an answer. The log may be compacted, may get foreign copies, may lose
its tail. Answers records that nobody asks for any more are erased, which leaves holes. In half of the runs the partition is
copied at some moment, and life goes on in the copy: dense where the source has holes, with records doubled where the copier
was killed, perhaps torn at its end, perhaps by two copiers at once, and with a copier that goes on when the copy is in use
already and brings what the source wrote since. After each run the log is walked with the validity rule and the answers are
judged; of a copy, that it holds the same events as the source.

  model.py                          all faults that the protocol must survive
  model.py --break NAME             one mechanism off: the judge must notice
     epoch nonce claimkey offset seq batch continuity barrier remember wholeround gapless resume
     copied      no record switches the comparison of offsets off
     native      the first claim of a copy, of whoever, switches it on again
     first       a copied record counts wherever it stands, and begins anew
     copystate   a resumed reader does not know that it is in a copy
     nativeonly  an owner's claim does not say which copy it is in, so nothing tells it from those of the source
     late        where the copy is in use, a claim of the source counts as any other (with jump)
     jump        the first claim in a copy has the next number, as any other
"offset" alone is not noticed: it is a second lock behind "gapless"; nor is "late", behind "jump". Several names are separated
by commas.
"""
import argparse, random, sys
ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument('--runs', type=int, default=5000); ap.add_argument('--steps', type=int, default=200)
ap.add_argument('--seed', type=int, default=1); ap.add_argument('--break', dest='brk', default='')
ap.add_argument('--faults', default='resend,copy,dup,compact,tail,erase,copied')
A = ap.parse_args(); OFF = set(A.brk.split(',')); FAULTS = set(A.faults.split(','))

class Reader:
    """The validity rule. Constant state: current claim, last sequence, the held events of one command."""
    def __init__(s, number=0, writer=None, claim=-1, last=0, copy=None, copied=False):
        s.number, s.writer, s.claim, s.last, s.held, s.copy, s.copied, s.alarm = number, writer, claim, last, [], copy, copied, False
    def feed(s, off, r):
        """Takes the next record; returns the offsets that it releases (events) and an answers record if it is valid."""
        if r['t'] == 'copied':                                         # only before anything else
            if s.number == 0 and s.copy is None or 'first' in OFF:
                s.copy, s.copied = r['copy'], 'copied' not in OFF
                s.number, s.writer, s.claim, s.last, s.held = 0, None, -1, 0, []
            return [], None
        if r['t'] == 'claim':
            native = r['copy'] == s.copy
            if not native and not s.copied and 'copied' not in OFF and 'late' not in OFF: return [], None   # by a copier that is late
            if r['e'] > s.number:
                s.number, s.writer, s.claim, s.last, s.held = r['e'], r['w'], off, 0, []
                if native or 'native' in OFF: s.copied = False
            return [], None
        if r['e'] > s.number: s.alarm = True                           # a claim was lost
        if r['e'] != s.number and 'epoch' not in OFF: return [], None
        if r['w'] != s.writer and not OFF & {'nonce', 'epoch'}: return [], None
        if r['seq'] <= s.last and 'seq' not in OFF: return [], None
        if off < s.claim + r['seq'] and not s.copied and 'offset' not in OFF: return [], None
        s.last = r['seq']
        if r['t'] == 'answers': return [], r
        if 'batch' in OFF: return [off], None
        if r['i'] == 0: s.held = []
        elif len(s.held) != r['i']: s.held = []; return [], None
        s.held.append(off)
        if r['i'] < r['n'] - 1: return [], None
        out, s.held = s.held, []
        return out, None
    def resume_point(s, log, nxt):
        """What is stored with a checkpoint: continue at the first held record, in the state before it."""
        copied = s.copied and 'copystate' not in OFF
        if 'resume' in OFF or not s.held: return nxt, Reader(s.number, s.writer, s.claim, s.last, s.copy, copied)
        return s.held[0], Reader(s.number, s.writer, s.claim, log[s.held[0]]['seq'] - 1, s.copy, copied)

def walk(log, lo=0, hi=None, reader=None):
    reader = reader or Reader(); events, answers = [], []
    for off in range(lo, len(log) if hi is None else hi):
        if log[off] is None: continue                                  # compacted away
        ev, an = reader.feed(off, log[off]); events += ev
        if an: answers.append((off, an))
    return events, answers, reader

class Process:
    def __init__(s, w): s.w, s.waiting = w, []; s.drop()
    def drop(s): s.state, s.producer, s.round = 'idle', None, None
    def crash(s): s.drop(); s.waiting = []                             # its callers never hear
    def doubt(s):                                                      # gap, unknown report, deadline: never use this producer again
        if s.round: s.waiting += s.round['cmds']
        s.drop()
    def claim(s):
        s.doubt(); reader = walk(s.w.log)[2]; number = reader.number + 1; s.e, s.wr = number, s.w.fresh()
        if reader.copied and 'jump' not in OFF: s.e += 1 << 32           # above whatever the source claims from now on
        copy = s.w.fresh() if 'nativeonly' in OFF and reader.copied else reader.copy
        s.state, s.seq = 'claiming', 0; s.producer = s.w.producer(s); s.producer['q'].append(dict(t='claim', e=s.e, w=s.wr, copy=copy))
    def take_over(s, off):
        log = s.w.log
        if off >= len(log) or log[off] is None or log[off].get('w') != s.wr: return s.drop()
        events, answers, reader = walk(log, 0, off + 1)
        if reader.claim != off: return s.drop()                          # lost the duel
        s.balance, s.version, s.known = 0, 0, {}
        for o in events: s.balance += log[o]['amt']; s.version += 1; s.known[log[o]['cmd']] = 'ok'
        if 'remember' not in OFF:
            for _, a in answers:
                for c, _ in a['refused']: s.known[c] = 'refused'
        s.state, s.at = 'owner', off
        for c in s.waiting:                                            # settle what was in doubt, from the log
            if c in s.known: s.w.answer(c, s.known[c])
        s.waiting = []
    def serve(s):
        """One round: decide on the working state, append everything, answer when the whole round has followed on."""
        if s.round: return
        recs, cmds, refused = [], [], []
        for _ in range(random.randint(1, 3)):
            c = s.w.next_command(); k = s.w.kinds[c]; n = abs(k)
            if c in s.known:
                if s.known[c] != 'pending': s.w.answer(c, s.known[c])
                continue
            cmds.append(c); s.known[c] = 'pending'
            if k < 0 and s.balance < n: refused.append((c, s.version)); continue
            for i in range(n):
                s.version += 1; amt = 1 if k > 0 else -1; s.balance += amt
                recs.append(dict(t='event', e=s.e, w=s.wr, i=i, n=n, cmd=c, amt=amt, ver=s.version))
        if refused and 'barrier' not in OFF: recs.append(dict(t='answers', e=s.e, w=s.wr, refused=refused))
        if 'barrier' in OFF:
            for c, v in refused: s.known[c] = 'refused'; s.w.answer(c, 'refused', v, len(s.w.log), len(s.w.log)); cmds.remove(c)
        if not recs: return
        for r in recs: s.seq += 1; r['seq'] = s.seq
        s.producer['q'] += recs; s.round = dict(recs=recs, left=len(recs), cmds=cmds, refused=dict(refused))
    def report(s, off, rec):
        if s.state == 'claiming': return s.take_over(off)
        if s.state != 'owner' or not s.round: return
        if off != s.at + rec['seq'] and 'continuity' not in OFF: return s.doubt()
        s.round['left'] -= 1
        if 'wholeround' in OFF and s.round['refused'] and rec is s.round['recs'][0]:
            for c, v in s.round['refused'].items(): s.known[c] = 'refused'; s.w.answer(c, 'refused', v, off, off)
        if s.round['left'] == 0:
            for c in s.round['cmds']:
                how = 'refused' if c in s.round['refused'] else 'ok'; s.known[c] = how; s.w.answer(c, how, s.round['refused'].get(c), s.at + s.round['recs'][0]['seq'], off)
            s.round = None

class World:
    def __init__(s, n):
        s.log, s.producers, s.reports, s.kinds, s.answers, s.wrong, s.refusals, s.tail_lost, s.ids = [], [], [], {}, {}, None, [], False, 0
        s.retired, s.late, s.before, s.is_copy, s.doubles = set(), [], None, False, False
        s.procs = [Process(s) for _ in range(n)]
    def fresh(s): s.ids += 1; return s.ids
    def producer(s, p): d = dict(q=[], owner=p, sent=0, dead=False); s.producers.append(d); return d
    def next_command(s):
        again = [c for c in s.kinds if c not in s.retired]
        if again and random.random() < (.3 if 'resend' in FAULTS else 0): return random.choice(again)
        c = s.fresh(); s.kinds[c] = random.choice([1, 2, 3, -1, -2, -3]); return c
    def answer(s, c, how, ver=None, begin=None, end=None):
        if s.answers.setdefault(c, how) != how and not s.tail_lost: s.wrong = s.wrong or f'command {c} answered {s.answers[c]}, then {how}'
        if ver is not None: s.refusals.append((c, ver, begin, end))
    def compact(s):
        seen = set()
        for off in range(len(s.log) - random.randint(3, 8) - 1, -1, -1):
            r = s.log[off]
            if r is None: continue
            if r['t'] == 'copied': continue                             # its key is its own
            key = (('c', r['e']) if 'claimkey' in OFF else ('c', r['e'], r['w'])) if r['t'] == 'claim' else \
                  ('a', r['seq'], r['e'], r['w']) if r['t'] == 'answers' else ('e', r['ver'], r['e'], 0 if 'nonce' in OFF else r['w'])
            if key in seen: s.log[off] = None
            seen.add(key)
    def erase(s):
        """An answers record past the retention gets a tombstone: nobody sends its commands any more."""
        old = [o for o, r in enumerate(s.log[:-10]) if r and r['t'] == 'answers' and 'p' in r]
        for o in old[:random.randint(1, 3)]: s.retired |= {c for c, _ in s.log[o]['refused']}; s.log[o] = None
    def copied(s):
        """Goes on in a copy of the partition."""
        s.wrong = s.wrong or s.judge()
        source = [r for r in s.log if r]
        if random.random() < .3 and source:
            cut = len(source) - random.randint(1, min(4, len(source)))
            source, s.tail_lost = source[:cut], True
        s.before = [(r['cmd'], r['ver']) for r in (source[o] for o in walk_source(s.log, len(source)))]
        top, writer = walk(s.log)[2].number, s.fresh()
        plain = lambda r: {k: v for k, v in r.items() if k not in ('p', 'ps')}
        def copier():
            out, at = [dict(t='copied', copy=s.fresh())], 0
            while at < len(source):
                out.append(plain(source[at])); at += 1
                if s.doubles and random.random() < .05: at = max(0, at - random.randint(1, 6))   # killed, and begins a little before
            return out
        first = copier(); s.log = []
        if s.doubles and random.random() < .4:                           # another one beside it
            second = copier()
            s.log.append(first.pop(0))
            while first: s.log.append((second if second and random.random() < .4 else first).pop(0))
            s.late = second
        else: s.log = first
        later = []                                                       # the source lives on, and so does its copier
        for e in range(top + 1, top + 4):
            later += [dict(t='claim', e=e, w=writer, copy=source_copy(source)),
                      dict(t='event', e=e, w=writer, seq=1, i=0, n=1, cmd=-s.fresh(), amt=1, ver=99)]
        s.late = s.late + later; s.is_copy = True
        for p in s.procs: p.crash()
        s.producers, s.reports, s.refusals = [], [], []
    def step(s):
        x, y, p = random.random(), random.random(), random.choice(s.procs)
        if 'tail' in FAULTS and y < .003 and len(s.log) > s.is_copy: del s.log[-random.randint(1, min(5, len(s.log) - s.is_copy)):]; s.tail_lost, s.before = True, None
        elif 'copy' in FAULTS and y < .01 and s.log:                     # a record of another partition or a backup, with the current number
            s.log.append(dict(t='event', e=walk(s.log)[2].number, w=-1, seq=random.randint(1, 30), i=0, n=1, cmd=-s.fresh(), amt=1, ver=99))
        elif 'dup' in FAULTS and y < .02 and s.log:                      # a mirror replays one of our own records
            r = random.choice(s.log)
            if r and r['t'] != 'claim' and 'compact' not in FAULTS: s.log.append(dict(r))
        elif 'compact' in FAULTS and y < .03: s.compact()
        elif 'erase' in FAULTS and y < .06: s.erase()
        elif s.late and y < .12 and (not walk(s.log)[2].copied or 'nativeonly' in OFF and any(r and 'p' in r for r in s.log)): s.log.append(s.late.pop(0))
        if x < .03: p.claim()
        elif x < .04: p.crash()
        elif x < .05: p.doubt()
        elif x < .40:
            if p.state == 'owner': p.serve()
        elif x < .75:
            live = [d for d in s.producers if d['q']]
            if live:
                d = random.choice(live); r = d['q'].pop(0)
                on_broker = next((q['ps'] for q in reversed(s.log) if q and q.get('p') is d), None)
                if on_broker is not None and on_broker != d['sent']: d['q'].clear(); return   # the broker lost the tail: out of order, fatal
                d['sent'] += 1; s.log.append(dict(r, p=d, ps=d['sent'])); s.reports.append((d, len(s.log) - 1, r))
                if 'gapless' in OFF and d['q'] and random.random() < .05: d['q'].pop(0)       # the client drops one message and goes on
        elif x < .77:
            dead = [d for d in s.producers if d['q'] and d['owner'].producer is not d]
            if dead: random.choice(dead)['q'].clear()
        elif s.reports:
            d = random.choice(s.reports)[0]; i = next(i for i, r in enumerate(s.reports) if r[0] is d); d, off, r = s.reports.pop(i)
            if d['owner'].producer is d: d['owner'].report(off, r)
    def judge(s):
        if s.wrong: return s.wrong
        good, _, reader = walk(s.log)
        if s.is_copy and reader.alarm and not s.tail_lost: return 'a copier that is late stops the partition'
        if s.before is not None and [(r['cmd'], r['ver']) for r in (s.log[o] for o in good[:len(s.before)])] != s.before: return 'a copy has other events than its source'
        evs = [s.log[o] for o in good]; balance, count = 0, {}
        for i, r in enumerate(evs):
            if r['cmd'] not in s.kinds: return 'a foreign record was applied'
            if r['ver'] != i + 1: return f'version {r["ver"]} at place {i + 1}'
            balance += r['amt']; count[r['cmd']] = count.get(r['cmd'], 0) + 1
            if balance < 0: return 'overdrawn: decided on old state'
        for c, k in count.items():
            if k != abs(s.kinds[c]): return f'command {c} has {k} of its {abs(s.kinds[c])} events'
        if not s.tail_lost:
            for c, how in s.answers.items():
                if (how == 'ok') != (c in count): return f'command {c} was answered {how}; in the log: {c in count}'
            for c, ver, begin, end in s.refusals:                      # it held at some moment of its round
                if not sum(o < begin for o in good) <= ver <= sum(o < end for o in good): return f'the refusal of {c} was decided on old state'
        cut = random.randint(0, len(s.log)); first, _, rd = walk(s.log, 0, cut); at, rd = rd.resume_point(s.log, cut)
        if first + walk(s.log, at, None, rd)[0] != good: return 'a resumed reader lost or doubled events'

def walk_source(log, count):
    """The places, among the records that are there, of the events that count in the first `count` of them."""
    place, n = {}, 0
    for off, r in enumerate(log):
        if r and n < count: place[off] = n; n += 1
    hi = max(place, default=-1) + 1
    return [place[o] for o in walk(log, 0, hi)[0]]

def source_copy(source): return next((r['copy'] for r in reversed(source) if r['t'] == 'claim'), None)

bad, first, kinds, nev, nans, ncopies = 0, '', {}, 0, 0, 0
for seed in range(A.seed, A.seed + A.runs):
    random.seed(seed); w = World(random.choice([1, 2, 3]))
    # A log is compacted or has doubled records, not both: compaction keeps the last of two. So a copy is whole before it is compacted.
    given = set(FAULTS); FAULTS.discard(random.choice(['compact', 'dup']))
    at = random.randrange(A.steps) if 'copied' in FAULTS and random.random() < .5 else None
    for step in range(A.steps):
        if step == at:
            w.doubles = 'dup' in given and ('dup' in FAULTS or random.random() < .5)
            FAULTS = given - ({'compact'} if w.doubles else {'dup'}); w.copied(); ncopies += 1
        w.step()
    FAULTS = given
    why = w.judge(); nev += len(walk(w.log)[0]); nans += len(w.answers)
    if why: bad += 1; first = first or f'seed {seed}: {why}'
print(f'{A.runs} runs, {nev} events accepted, {nans} commands answered, {ncopies} copied, {bad} bad' + (f'; first: {first}' if bad else ''))
sys.exit(1 if bad else 0)
