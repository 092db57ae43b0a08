// SPDX-License-Identifier: MIT OR Apache-2.0
// Many processes on one queue, spread over the domains that DOMAINS names (natively that means
// nothing): `msg_storm exact PROCESSES ROUNDS` and `msg_storm killed PROCESSES KILLS`. The other roles
// are those of the processes. Each message says who sent it, which of its messages it is, and how long
// it is; the rest of its text follows from that.
#include "domains.h"
#include "msg.h"
#include <stdatomic.h>

enum { MOST = 128, TYPES = 5, SERIALS = 1 << 16, RUNS = 4096, LARGEST = 3000 };

// A length that costs much where short texts are kept beside others and long ones in pieces.
enum { LEAST_DENSE = 73 };

struct letter {
    long type;
    struct head {
        unsigned sender, serial, size;
    } head;
    char text[LARGEST];
};

// What all know.
struct account {
    _Atomic long received;             // messages in all
    _Atomic unsigned sent[RUNS];       // by each sender that there was
    _Atomic unsigned char seen[RUNS][SERIALS / 8];
};

static int the_queue;
static struct account *account;

static void find_both(void)
{
    the_queue = msgget(KEY, 0);
    CHECK(the_queue >= 0);
    account = (struct account *)attach(shmget(KEY, 0, 0600));
}

static int is_seen(unsigned sender, unsigned serial)
{
    return account->seen[sender][serial / 8] >> serial % 8 & 1;
}

static size_t some_size(void)
{
    return below(4) ? below(80) : below(8) ? below(700) : below(LARGEST);
}

// Sends one more message.
static void send_one(unsigned sender, unsigned serial)
{
    struct letter letter = {.type = 1 + (long)below(TYPES)};
    size_t size = some_size();
    letter.head = (struct head){sender, serial, (unsigned)size};
    fill(letter.text, size, sender * 31 + serial);
    int flags = below(4) ? 0 : NOWAIT;
    while (msgsnd(the_queue, &letter, sizeof letter.head + size, flags) != 0) {
        SAME(errno, EAGAIN);
        flags = 0;
    }
    account->sent[sender] = serial;
}

// Notes a message that was received, which has to be whole.
static void note(const struct letter *letter, ssize_t got)
{
    const struct head *head = &letter->head;
    SAME(got, sizeof *head + head->size);
    CHECK(head->sender < RUNS && head->serial > 0 && head->serial < SERIALS);
    CHECK(letter->type > 0 && letter->type <= TYPES);
    CHECK(is_filled(letter->text, head->size, head->sender * 31 + head->serial));
    unsigned char bit = (unsigned char)(1 << head->serial % 8);
    // None twice.
    CHECK(!(atomic_fetch_or(&account->seen[head->sender][head->serial / 8], bit) & bit));
    account->received++;
}

// Receives one more message into `letter`: one that is wanted, or any. The number of bytes; or -1 when
// there was none or too little room.
static ssize_t receive_one(struct letter *letter, long favourite)
{
    size_t room = below(16) ? sizeof *letter - sizeof letter->type : below(100);
    long want = favourite;
    int flags = below(3) ? 0 : NOWAIT;
    if (want == 0)
        want = below(2) ? 0 : -(long)TYPES;
    else if (below(3) == 0)
        want = below(2) ? -want : 1 + (long)below(TYPES);
    if (favourite != 0 && want > 0 && below(8) == 0)
        flags |= EXCEPT;
    ssize_t got = msgrcv(the_queue, letter, room, want, flags);
    if (got < 0 && errno == ENOMSG)
        CHECK(flags & NOWAIT);
    else if (got < 0 && errno == E2BIG)
        CHECK(room < 100);
    else if (got >= 0)
        note(letter, got);
    return got;
}

// Of those that receive every other one takes whatever comes: else all could wait for what there is not,
// and keep what there is from leaving.
static long favourite(unsigned number)
{
    return number / 2 % 2 ? 0 : 1 + (long)below(TYPES);
}

static void sending(char **args)
{
    unsigned rounds = (unsigned)atoi(args[1]), sender = (unsigned)atoi(args[0]);
    seed(args[0]);
    find_both();
    for (unsigned serial = 1; serial <= rounds; serial++)
        send_one(sender, serial);
}

// Until the queue is gone.
static void receiving(char **args)
{
    static unsigned last[RUNS][TYPES + 1];
    unsigned number = (unsigned)atoi(args[0]);
    seed(args[0]);
    find_both();
    for (;;) {
        struct letter letter;
        if (receive_one(&letter, favourite(number)) < 0) {
            if (errno == EIDRM || errno == EINVAL)
                return;
            CHECK(errno == ENOMSG || errno == E2BIG);
            continue;
        }
        // Of one sender and one type none comes before an earlier one.
        unsigned *before = &last[letter.head.sender][letter.type];
        CHECK(*before < letter.head.serial);
        *before = letter.head.serial;
    }
}

static void sometimes_rests(void)
{
    if (below(200) == 0)
        usleep(below(2000));
}

// One in two sends, the others receive.
static void goes_on_for_ever(char **args)
{
    unsigned number = (unsigned)atoi(args[0]);
    seed(args[0]);
    find_both();
    while (number % 2 == 0) {
        struct letter letter;
        CHECK(receive_one(&letter, favourite(number)) >= 0 || errno == ENOMSG || errno == E2BIG);
        sometimes_rests();
    }
    for (unsigned serial = 1; serial < SERIALS; serial++) {
        send_one(number, serial);
        sometimes_rests();
    }
    for (;;)
        pause();
}

// Whether the queue takes as many bytes, and as many messages, as it should. Not while something comes
// into it that somebody else has left.
static int takes_all(void)
{
    unsigned long bytes = queue_stat(the_queue).msg_qbytes, large = 0, empty = 0;
    while (put_bytes(the_queue, TYPES + 1, LEAST_DENSE, 1, NOWAIT) == 0)
        large++;
    SAME(errno, EAGAIN);
    for (unsigned long n = 0; n < large; n++)
        takes(the_queue, TYPES + 1, LEAST_DENSE, 1);
    while (put_bytes(the_queue, TYPES + 1, 0, 0, NOWAIT) == 0)
        empty++;
    SAME(errno, EAGAIN);
    for (unsigned long n = 0; n < empty; n++)
        takes(the_queue, TYPES + 1, 0, 0);
    struct msqid_ds ds = queue_stat(the_queue);
    return large == bytes / LEAST_DENSE && empty == bytes && ds.msg_qnum == 0 && ds.__msg_cbytes == 0;
}

static int begin(void)
{
    the_queue = queue();
    int segment = make(KEY, sizeof *account);
    account = (struct account *)attach(segment);
    return segment;
}

static void end(int segment)
{
    detach((volatile char *)account);
    destroy(segment);
}

static void exact(char **args)
{
    int processes = atoi(args[0]), rounds = atoi(args[1]);
    CHECK(processes <= MOST && rounds < SERIALS);
    pid_t children[MOST];
    int segment = begin();
    // Senders and receivers in each domain.
    for (int n = 0; n < processes; n++)
        children[n] = start(n, n / 4 % 2 ? "receiving" : "sending", (unsigned)n + 1, args[1]);
    long all = 0;
    for (int n = 0; n < processes; n++)
        if (n / 4 % 2 == 0) {
            wait_ok(children[n]);
            all += rounds;
        }
    while (account->received < all)
        usleep(1000);
    HOLDS(the_queue, 0, 0);
    queue_gone(the_queue);
    for (int n = 0; n < processes; n++)
        if (n / 4 % 2)
            wait_ok(children[n]);
    SAME(account->received, all);
    for (int n = 0; n < processes; n++)
        for (int serial = 1; n / 4 % 2 == 0 && serial <= rounds; serial++)
            CHECK(is_seen((unsigned)n + 1, (unsigned)serial));
    end(segment);
}

// Messages that were sent and that nobody has.
static long lost(void)
{
    long count = 0;
    for (unsigned sender = 0; sender < RUNS; sender++)
        for (unsigned serial = 1; serial <= account->sent[sender]; serial++)
            count += !is_seen(sender, serial);
    return count;
}

static void killed(char **args)
{
    int processes = atoi(args[0]), kills = atoi(args[1]);
    pid_t children[MOST];
    CHECK(processes <= MOST && 1000 + kills < RUNS);
    int segment = begin();
    kill_at_random(children, processes, kills, "goes_on_for_ever");
    CHECK(account->received > 0);
    // Each receiver may have had one in its hands; no other is lost. What was handed to the dead may
    // take its time to come back.
    long receivers = processes / 2 + (kills + 1) / 2;
    do {
        struct letter letter;
        ssize_t got;
        while ((got = msgrcv(the_queue, &letter, sizeof letter - sizeof letter.type, 0, NOWAIT)) >= 0)
            note(&letter, got);
        SAME(errno, ENOMSG);
    } while (!takes_all() || lost() > receivers);
    queue_gone(the_queue);
    end(segment);
}

SCENARIOS({"exact", exact},
          {"killed", killed},
          {"sending", sending},
          {"receiving", receiving},
          {"goes_on_for_ever", goes_on_for_ever})
