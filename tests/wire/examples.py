# SPDX-License-Identifier: Apache-2.0
"""One example of every message, and what it looks like on the wire. A line of bytes changes only with `VERSION`."""

import numpy as np

from insitu.model import Variable
from insitu.wire import learning as n
from insitu.wire import messages as m
from insitu.wire import steering as w
from insitu.wire import tracing as t
from insitu.wire import viewing as v
from insitu.wire.limits import WHOLE

TEMPERATURE = Variable("T", np.dtype("f8"), (4, 6), ("y", "x"), units="K", long_name="temperature")
VELOCITY = Variable("v", np.dtype("f4"), None, ("atom", "axis"), units="m s-1", row=(3,))
ENERGY = Variable("E", np.dtype("f8"), (), (), units="J")

LAYOUT = m.Layout(
    0,
    (
        m.BlockSpec(TEMPERATURE, (0, 0), (2, 6)),
        m.BlockSpec(VELOCITY, (0, 0), (0, 3)),
        m.BlockSpec(ENERGY, (), ()),
    ),
)
BUFFERS = (np.arange(12.0).reshape(2, 6), np.ones((5, 3), np.float32), np.array(2.5))
NEEDS = (
    m.Need("T", (m.Range("y", None, -1, 1), m.Range("x", 0, None, 2)), "float32", "zfp", 1e-6),
    m.Need("E", (), "", "none", 0.0),
)
CONTEXT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PICTURE = (np.ones((4, 3), np.float32),)
STATE = {
    "n": 3,
    "mean": np.arange(6.0).reshape(2, 3),
    "bins": [np.array([1, 2], np.int64), {"empty": np.zeros((0, 3), bool)}],
    "nothing": None,
    "done": True,
    "name": "größe",
    "low": float("-inf"),
}


MESSAGES: list[m.Message] = [
    m.Hello(m.VERSION, "melt", 0, 3, 4, "n17", 4711),
    LAYOUT,
    w.Declare("state", "u", {"kind": "field", "shape": [4, 6], "minimum": 0.0}, (2, 0), (2, 6)),
    m.Dropped(7, 70, 0.7, "no room"),
    m.Bye(100, {"steps": 100, "wait_s": 0.25}),
    m.Welcome(
        "melt",
        (m.Share(0, "tcp://127.0.0.1:5555", 0, 1, 2),),
        1 << 28,
        60.0,
        "block",
        1,
        "drop",
        1 << 32,
        "/scratch",
        "auto",
        NEEDS,
        w.SteeringTerms("promise", 1.0, 3600.0, "stop", 0),
        ("stats",),
        ("E",),
        "5eed",
        100,
        "folded",
    ),
    m.Refuse("this is another run"),
    m.Ping(),
    m.Attach(m.VERSION, "melt", 0, 3, "n17", 4711),
    m.Publish(7, -70, 0.7, 0, BUFFERS),
    m.Detach(100),
    m.Credit(1 << 30),
    m.Ack(7, 5, 1 << 40, 1 << 39, 3, 1 << 38),
    m.NodeHello(m.VERSION, "melt", 1, "tcp://127.0.0.1:5556", "n18", 4712),
    m.Closed(0, (((0, 0), (3, 1)),), (m.ClosedStep(7, 70, 0.7, 0, 1024, (3,)),)),
    m.Partial("stats", 0, 2, 3, 7, True, (m.Entry(2, 5, 30, 70, 0.7, ((2, 0), (2, 3)), STATE),)),
    m.Held("stats", 0, 2, 3, 7, True, "melt-1-stats-2", 1 << 20, 5, 30, 70, 0.7, (((0, 0), (2, 6)),)),
    m.Event("error", "operator-stopped", "It is stopped.", {"operator": "stats", "steps": [1, 2.5, None]}),
    m.Status({"fold_s": 1.5, "steps": 7, "phase": "folding"}),
    m.Finished(0),
    m.NodeWelcome("melt"),
    m.Feed(0, 4, (0, 1), (0,)),
    m.Commit(0, 7, ((6, ("T",)),), (3, 5)),
    m.Finish(0, 100),
    m.Shutdown(),
    m.Lend("insitu-4711-0f", "c0ffee", 1 << 28),
    m.Borrow(True),
    m.PublishLent(7, -70, 0.7, 0, ((0, 96), (128, 24), (192, 8))),
    m.Offer(TEMPERATURE),
    m.Tally((m.Traffic("T", 1 << 40, 1 << 20, 0, 3), m.Traffic("E", 8, 8, 8, 0))),
    m.PublishEncoded(7, -70, 0.7, 0, (m.Form("zfp", 96, 1e-3), m.Form("", 60, 0.0), m.Form("", 8, 0.0)), BUFFERS),
    m.Approve(0, ((0, 0), (3, 1)), ("T",)),
    m.Skip((7, 9)),
    w.Reached(8, 70, 0.7),
    w.Answer(3, "applied", 8, 70, 0.7, "", {"feed": 0.03, "inlets": [1.0, 2.5]}, 0.001, 2),
    w.Propose(3, 8, False, "set", {"feed": 0.05, "u": np.arange(6.0).reshape(2, 3)}),
    w.Decide(3, True),
    w.ConsoleHello(m.VERSION, "melt", "ada", "n17", 4713),
    w.ConsoleWelcome("melt"),
    w.Request(0, "set", {"feed": 0.05}, "user:ada", "too cold"),
    w.Leave(),
    w.Steerable(True, ({"name": "feed"},), {"perturb": {"arguments": []}}, {"feed": 0.03}),
    w.Settled(-1, {"id": 1, "kind": "stop", "outcome": "applied", "step": 70}),
    m.Fed(0, ((0, -1), (3, 7))),
    v.Watch(m.VERSION, "melt", "n19", 4713),
    v.Watching("melt"),
    v.Ask(),
    v.News.of({"steps": 7, "ranks": [{"rank": 0, "state": "running"}]}),
    v.Look(3, "T", (m.Range("y", 2, 3, 1),), 1 << 18),
    v.Sight(3, 2, TEMPERATURE, 7, -70, 0.7, (1, 2), (((0, 0), (4, 3)),), "", PICTURE),
    v.Peek(4, "T", (m.Range("x", -8, None, 2),), None, 7, 5),
    v.Glimpse(4, None, -1, 0, 0.0, (), (), "no rank puts it", ()),
    n.LearnerHello(m.VERSION, "melt", "surrogate", "n18", 4714),
    n.Sources(((0, "tcp://127.0.0.1:5556"), (2, "tcp://127.0.0.1:5557"))),
    n.Subscribe(m.VERSION, "melt", "surrogate", "n18", 4714),
    n.Lesson(7, -70, 0.7, tuple((3, spec) for spec in LAYOUT.blocks), BUFFERS),
    n.Learned(7),
    n.Dismiss("surrogate"),
    w.Follow(("mean", "modes")),
    w.Shown("mean", "", 3, 60, 70, 0.7, 10, 0, True, {"mean": np.arange(6.0).reshape(2, 3), "count": np.array(6)}),
    w.Standing(8, 70, 0.7),
    w.Paused(-1, 0, 0.0),
    m.NodeGone(1),
    m.Ship(48, m.Partial("stats", 0, 2, 3, 7, True, (m.Entry(2, 5, 30, 70, 0.7, ((2, 0), (2, 3)), STATE),))),
    m.Replan(1, (m.Share(2, "tcp://127.0.0.1:5557", 1, 2, 2),)),
    m.Adopted(1, 7),
    m.Moved(0, 3, 7, True),
    w.Scale(3),
    w.Scaled(2, "it has ended"),
    n.Join(3, (1,)),
    n.Meet(4, (0, 2), "5f1c"),
    m.LendLane("insitu-4711-1f", "c0ffee", "insitu-bell-4711-2f"),
    m.BorrowLane("insitu-bell-4712-3f"),
    t.Traced(7, CONTEXT),
    t.TracedWindow("stats", 2, (CONTEXT, CONTEXT)),
    t.Spans((t.Span("receive", "consumer", CONTEXT, "", 1_800_000_000_000_000_000, WHOLE, {"insitu.ranks": 4}),)),
]

#: The headers of `MESSAGES`, in their order.
HEADERS = [
    "99020102a46d656c74000304a36e3137cd1267",
    "94020200939397a154a33c663892040692a179a178a14bab74656d7065726174757265909200009202069397a176a33c6634c092a461746f"
    "6da461786973a56d20732d31a091039200009200039397a145a33c66389090a14aa0909090",
    "970203a57374617465a17583a46b696e64a56669656c64a57368617065920406a76d696e696d756dcb0000000000000000920200920206",
    "9602040746cb3fe6666666666666a76e6f20726f6f6d",
    "9402056482a5737465707364a6776169745f73cb3fd0000000000000",
    "dc00130206a46d656c74919600b47463703a2f2f3132372e302e302e313a35353535000102a0ce10000000cb404e000000000000a5626c6f636b01a464726f70cf0000000100000000a82f73637261746368a46175746f9296a1549294a179c0ff0194a17800c002a7666c6f61743332a37a6670cb3eb0c6f7a0b5ed8d94a473746570c0c00196a14590a0a46e6f6e65cb000000000000000094a473746570c0c00195a770726f6d697365cb3ff0000000000000cb40ac200000000000a473746f700091a5737461747391a145a43565656464a6666f6c646564",
    "930207b37468697320697320616e6f746865722072756e",
    "920209",
    "98020a02a46d656c740003a36e3137cd1267",
    "96020b07d0bacb3fe666666666666600",
    "93020c64",
    "93020dce40000000",
    "98020e0705cf0000010000000000cf000000800000000003cf0000004000000000",
    "99020f02a46d656c7401b47463703a2f2f3132372e302e302e313a35353536a36e3138cd1268a0",
    "95021000919292000092030191960746cb3fe666666666666600cd04009103",
    "990211a5737461747300020307c3919702051e46cb3fe66666666666669292020092020387a16e03a46d65616ed70192a33c6638920203"
    "a462696e7392c7070192a33c6938910281a5656d707479d70192a37c6231920003a76e6f7468696e67c0a4646f6e65c3a46e616d65a767"
    "72c3b6c39f65a36c6f77cbfff0000000000000",
    "9f0212a5737461747300020307c3ae6d656c742d312d73746174732d32ce00100000051e46cb3fe66666666666669192920000920206",
    "960213a56572726f72b06f70657261746f722d73746f70706564ae49742069732073746f707065642e82a86f70657261746f72a573746174"
    "73a573746570739301cb4004000000000000c0",
    "93021483a6666f6c645f73cb3ff8000000000000a5737465707307a57068617365a7666f6c64696e67",
    "93021500",
    "930216a46d656c74",
    "9702170004920001910000",
    "960218000791920691a154920305",
    "9402190064",
    "92021a",
    "95021bae696e736974752d343731312d3066a6633066666565ce10000000",
    "93021cc3",
    "97021d07d0bacb3fe6666666666666009392006092cc801892ccc008",
    "93021e97a154a33c663892040692a179a178a14bab74656d706572617475726590",
    "93021f9295a154cf0000010000000000ce00100000000395a14508080800",
    "97022007d0bacb3fe6666666666666009393a37a667060cb3f50624dd2f1a9fc93a03ccb000000000000000093a008cb0000000000000000",
    "950221009292000092030191a154",
    "930222920709",
    "9502230846cb3fe6666666666666",
    "9b022403a76170706c6965640846cb3fe6666666666666a082a466656564cb3f9eb851eb851eb8a6696e6c65747392cb3ff0000000000000"
    "cb4004000000000000cb3f50624dd2f1a9fc02",
    "9702250308c2a373657482a466656564cb3fa999999999999aa175d70192a33c6638920203",
    "94022603c3",
    "97022702a46d656c74a3616461a36e3137cd1269",
    "930228a46d656c74",
    "97022900a373657481a466656564cb3fa999999999999aa8757365723a616461a8746f6f20636f6c64",
    "92022a",
    "96022bc39181a46e616d65a46665656481a77065727475726281a9617267756d656e74739081a466656564cb3f9eb851eb851eb8",
    "94022cff84a2696401a46b696e64a473746f70a76f7574636f6d65a76170706c696564a47374657046",
    "94022d00929200ff920307",
    "96023202a46d656c74a36e3139cd1269",
    "930233a46d656c74",
    "920234",
    "920235",
    "97023603a1549194a179020301ce00040000c0",
    "9b0237030297a154a33c663892040692a179a178a14bab74656d70657261747572659007d0bacb3fe66666666666669201029192920000"
    "920403a0",
    "98023804a1549194a178f8c002c00705",
    "9a023904c0ff00cb00000000000000009090af6e6f2072616e6b2070757473206974",
    "98023c02a46d656c74a9737572726f67617465a36e3138cd126a00",
    "93023d929200b47463703a2f2f3132372e302e302e313a353535369202b47463703a2f2f3132372e302e302e313a35353537",
    "98023e02a46d656c74a9737572726f67617465a36e3138cd126a00",
    "96023f07d0bacb3fe66666666666669392039397a154a33c663892040692a179a178a14bab74656d70657261747572659092000092020692"
    "039397a176a33c6634c092a461746f6da461786973a56d20732d31a0910392000092000392039397a145a33c66389090a14aa0909090",
    "93024007",
    "940241a9737572726f67617465c0",
    "93024692a46d65616ea56d6f646573",
    "9c0247a46d65616ea0033c46cb3fe66666666666660a00c382a46d65616ed70192a33c6638920203a5636f756e74c7060192a33c693890",
    "9502480846cb3fe6666666666666",
    "950249ff00cb0000000000000000",
    "93024c01",
    "9402503097a5737461747300020307c3919702051e46cb3fe66666666666669292020092020387a16e03a46d65616ed70192a33c66389202"
    "03a462696e7392c7070192a33c6938910281a5656d707479d70192a37c6231920003a76e6f7468696e67c0a4646f6e65c3a46e616d65a767"
    "72c3b6c39f65a36c6f77cbfff0000000000000",
    "94025301919602b47463703a2f2f3132372e302e302e313a35353537010202a0",
    "9402540107",
    "960255000307c3",
    "93025603",
    "94025702ac69742068617320656e646564",
    "940258039101",
    "95025904920002a435663163",
    "95025aae696e736974752d343731312d3166a6633066666565b3696e736974752d62656c6c2d343731312d3266",
    "93025bb3696e736974752d62656c6c2d343731322d3366",
    "94026107d93730302d30616637363531393136636434336464383434386562323131633830333139632d6237616436623731363932303333"
    "33312d3031",
    "950262a573746174730292d93730302d30616637363531393136636434336464383434386562323131633830333139632d62376164366237"
    "3136393230333333312d3031d93730302d30616637363531393136636434336464383434386562323131633830333139632d623761643662"
    "373136393230333333312d3031",
    "9302639197a772656365697665a8636f6e73756d6572d93730302d3061663736353139313663643433646438343438656232313163383033"
    "3139632d623761643662373136393230333333312d3031a0cf18fae27693b40000cf7fffffffffffffff81ac696e736974752e72616e6b73"
    "04",
]
