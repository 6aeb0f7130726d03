//! The rules, for those who choose them: what each does, what it promises, how it fails.
//!
//! # Classify
//! The first rule whose every condition holds names the class. A request that no rule matches is
//! refused (`unclassified`).
//!
//! # Admit
//! A request is refused when no backend could ever hold it (`infeasible`), when its class has
//! `queue_max` requests waiting and it could not go at once, or when the allocator holds
//! `requests_max` requests (both `queue_full`). A full queue's answer to "when should I come
//! back" is the time in which those who wait will be dispatched at the pace measured lately, or
//! before that is measured the age of the oldest of them; at least a second.
//! A request that waited `time_to_live` is closed as expired. Without these bounds an overload
//! makes every wait grow without limit.
//!
//! The rules of `admit` are asked in order before the bound of the queue; the first that objects
//! refuses, and what the others reserved is given back.
//!
//! | rule | promise | failure |
//! |---|---|---|
//! | token bucket (`admit/bucket.rs`) | in any interval T at most `burst + rate · T` is admitted as predicted, less what came back | knows nothing of how full the backends are; predictions that are too high hold back until the end |
//! | saturation gate (`admit/gate.rs`) | with `stale = "open"` an outage of metrics halts nothing | overshoots by what arrives between two reports |
//! | early refusal (`admit/early.rs`) | who is let in waits about the limit at most while the pace holds | the pace is that of the last dozens of dispatches |
//! | retry budget (`admit/retry_budget.rs`) | of the last `window` at most `min + ratio ·` first attempts are retries that were let in | believes the mark of who asks; a retry refused later has used its part |
//!
//! # Predict
//! How much output a request is expected to deliver counts in windows, caps, shares and buckets:
//! the cap the client declares, what its class states, a running quantile of what its class
//! delivered (`predict/quantile.rs`), or, in studies, the truth with an error (`noisy-oracle`,
//! which every report names). Never above the cap.
//!
//! # Caps
//! A class holds at most `requests_max` requests and `tokens_max` estimated tokens (prompt +
//! predicted output) at backends. A class at its cap steps aside; the others go on. A cap keeps
//! one class from occupying everything; it leaves capacity idle when only that class has work.
//!
//! # Share: whose turn it is
//!
//! | rule | promise | failure |
//! |---|---|---|
//! | first come, first served | no one is overtaken | who sends more gets more |
//! | strict priority | the highest band with work is next | lower bands may wait for ever without the guard |
//! | deficit round robin (Shreedhar and Varghese, SIGCOMM 1995) | service of two flows with work differs by at most `quantum + max_f/w_f + max_g/w_g` cost units a weight | bursts of a quantum: a large quantum makes others wait for a whole visit |
//! | virtual token counter (Sheng et al., OSDI 2024) | the gap is at most `2 · (C + E)`: `C` the largest request, `E` what is in flight and was predicted wrongly | protects who has work now; nothing is saved up while idle |
//! | start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) | `max_f/w_f + max_g/w_g`: the tightest; with wrong predictions `2 · (E_f/w_f + E_g/w_g)` more | nothing is saved up while idle; a class that steps aside comes back with a burst in hand |
//! | stride (Waldspurger and Weihl, 1995) | dispatches differ by at most `1/w_f + 1/w_g` | fair in requests only: long ones get more; a baseline |
//! | dominant resource (DRFQ: Ghodsi et al., SIGCOMM 2012) | as start-time fair queueing, in time at the resource that a request needs most of | as good as the stated capacities |
//! | deficit longest prefix (Cao et al., 2025) | `2 · quantum + max_f/w_f + max_g/w_g + 2 · (E_f/w_f + E_g/w_g)` in computed tokens; within it the longest cached prefix goes first | a flow's own cold requests may wait behind its warm ones without the guard |
//!
//! Service is charged when a request is dispatched, as predicted, and corrected by what it really
//! used when it ends. Charging only at the end would let a burst take far more than its share
//! before any of it is booked.
//!
//! Accounts are kept per class, per tenant or per workflow (a request that is part of none belongs
//! to its tenant's). At most `accounts_max` are kept. An idle one makes room: first one whose owner
//! would be treated as a stranger anyway; if all places are taken, also one that was ahead or in
//! debt, which is then forgiven. If nobody is idle, a newcomer is refused (`queue_full`).
//!
//! # Order: who goes first within a turn
//! The key is fixed on arrival, so nothing is sorted again as time passes. Overtaking is bounded
//! where the key is a time.
//!
//! | rule | promise | failure |
//! |---|---|---|
//! | first come, first served | no one is overtaken | a small request waits behind all large ones before it |
//! | aging (arrival − the class's boost) | overtaken only by what arrives within the difference of the two boosts | blind to size |
//! | earliest deadline first, with relegation of what missed its own (Liu and Layland, 1973; Locke, 1986) | nothing late is picked while something in its turn can still make it | late work, and classes without a deadline, may wait for ever without the guard |
//! | shortest predicted (Smith, 1956) | with aging: overtaken only by what arrives within aging × the difference in tokens | without aging: the short starve the long. Halves the median, may double the tail |
//! | least attained service of the workflow (Luo et al., NSDI 2025) | nobody is passed over for a workflow that was given more | long workflows may wait for ever without the guard |
//! | longest cached prefix, with aging (Zheng et al., 2024) | overtaken only by what arrives within token × the difference in cached tokens | a match may be gone by the time of dispatch |
//!
//! # Partition: what a class may hold
//!
//! | rule | promise | failure |
//! |---|---|---|
//! | dedicated pools | a class never runs elsewhere; in an exclusive pool it never waits for others | what it does not use idles, or, shared, others hold it when it comes |
//! | quota (after Kueue's cohorts) | never above nominal + borrowed; nothing borrows while a lender below its nominal quota waits for it; what was lent returns within the longest remaining run, once a level of the tree | the return takes a whole run: limit what is lent to long ones |
//! | heavy lane: at most `max` requests that are estimated to compute more than `over_tokens` | a light request never waits for a heavy one that waits for the lane: they queue apart | idle capacity when there is only heavy work |
//! | concurrency (after Kubernetes' API priority and fairness) | a class below its share of the seats finds one, where every class has a share | what a class does not use is not lent |
//!
//! Work within its nominal quota goes before work that borrows, whatever the share says. A class that
//! may not go steps aside as a whole: a smaller request of it does not slip by a larger one.
//!
//! # Window and place
//! With `Window::Seats` a backend takes a request while it has a free seat and KV memory for the
//! request's estimated tokens. If the request that is next fits nowhere it is waited for: smaller
//! ones behind it do not slip by, so large requests are not starved; the price is memory that
//! stays free meanwhile. With `bypass_max` others that fit may go past it (`bypass`), in the order
//! in which it would be their turn, until that many have; then it is waited for. Of those who are
//! next up to 16 are looked past at once, none that the guard sends, and each keeps count, so a
//! request is never passed more often than `bypass_max`; what a bypass costs is charged like any
//! other dispatch. With `Window::None` everything goes at once and waits in the engine, where no
//! policy acts. A backend is used only for requests whose model it serves, whose class may use its
//! site and its pool, whose prompt + cap fits its longest context and whose estimated tokens fit its
//! memory. If the last backend that could hold a waiting request leaves, the request is refused
//! (`infeasible`) when it is next; if no backend is left that serves its model and that its class may
//! use, it waits (`no_backend`).
//!
//! Where requests may go to different backends, one that fits nowhere stops only those that could go
//! nowhere else: its class, and the classes whose backends are all among its own. Others go on, and
//! take no room on a backend that it waits for. So a class whose pools are full blocks nobody who may
//! go elsewhere. A class that stepped aside is asked again when something but time has changed, when
//! its time to spill has come, when the guard would send its oldest request, or when the heavy lane
//! closes. There nothing goes past by `bypass_max`: a policy that has it may state no sites of
//! classes, dedicated pools, local-first or quotas, and where backends serve different models it
//! does nothing.
//!
//! Of the backends with room, preferences decide in their order, then a last rule:
//!
//! | rule | promise | failure |
//! |---|---|---|
//! | local first | nothing leaves the near site before a wait of `spill_wait`, and spells of spilling begin at least `spill_wait + return_after` apart | each spell costs its first request that wait |
//! | prefix affinity, session affinity | the warm backend gets no more than the load break allows | without the break it is overloaded while others idle |
//! | least tokens | on the allocator's own accounts, one decision after the other: bursts do not herd | estimates that are wrong are noticed only at the end of a request |
//! | power of two choices (Mitzenmacher, 2001) | fullest ln ln n / ln 2 + O(1) above the mean, even on accounts that are shared or old | on exact accounts, noise |
//! | round robin | equal numbers of requests | unequal loads |
//!
//! # Feedback: what adapts to what happens
//!
//! | rule | promise | failure |
//! |---|---|---|
//! | adaptive concurrency (`feedback/concurrency.rs`) | `min ≤ limit ≤ window`; never falls twice on one gauge | learns nothing without load; climbs back one request a report |
//! | circuit breaker (`feedback/breaker.rs`) | a backend that fails everything costs `failures`, what was out when it opened, and one a rest | every other failure never opens it; a bad request sent again and again opens all |
//! | caps by objective (`feedback/slo_caps.rs`) | `min ≤ cap ≤ requests_max`; each step judged by requests that saw it | caps at `min` help nothing where lesser work is not the cause |
//! | evict sheddable (`feedback/evict.rs`) | at most `T / every + 1` evictions in any T, one out at a time, each request once; nothing that is not sheddable | what was computed is wasted; the seat goes to whoever is next, which the share decides |
//! | autoscaling advice (`feedback/autoscale.rs`) | within `min` and `max`, once in `cool_down` a pool, never inside the tolerance; down only if no look of `down_after` wanted more | follows what has come; a burst shorter than `cool_down` gets its backends too late |
//!
//! Nothing is tried again here: a request that failed is over, and whether to send it once more is
//! the driver's business, which knows what the client has received.
//!
//! # Guard
//! While anything has waited longer than its class's `wait_max`, due requests own the stated share
//! of dispatches: one with `n` due requests ahead of it goes within
//! `ceil((n + 1) · 1,000,000 / due_share_ppm)` dispatches. If more falls due than that share
//! of the capacity serves, `n` grows, and `time_to_live` ends the wait.
