# SPDX-License-Identifier: MIT OR Apache-2.0
# Perl's own calls and the modules of IPC::SysV, of two processes: sysv.pl serve|ask KEY
# LIST is a command that is run while everything is there.
use strict;
use warnings;
use IPC::SysV qw(IPC_CREAT IPC_EXCL IPC_STAT IPC_RMID S_IRUSR S_IWUSR SEM_UNDO);
use IPC::Msg;
use IPC::Semaphore;
use IPC::SharedMem;

my ($side, $key) = (shift // '', hex(shift // ''));
my $text = join '', map { chr(32 + $_ % 90) } 1 .. 5000;

sub need { my ($what, $got) = @_; defined $got or die "$what: $!\n"; return $got }

# Tries until what the other side makes is there.
sub find {
    my ($what, $get) = @_;
    for (1 .. 3000) {
        my $found = $get->();
        return $found if defined $found;
        select undef, undef, undef, 0.01;
    }
    die "$what: $!\n";
}

if ($side eq 'serve') {
    my $made = IPC_CREAT | IPC_EXCL | S_IRUSR | S_IWUSR;
    my $memory = need(memory => IPC::SharedMem->new($key, 8192, $made));
    my $set = need(set => IPC::Semaphore->new($key, 2, $made));
    need(setall => $set->setall(1, 0));
    # Perl's own, without the module.
    need(shmwrite => shmwrite $memory->id, $text, 0, length $text);
    my $queue = need(queue => IPC::Msg->new($key, $made));
    need(snd => $queue->snd(7, 'ready'));
    # Until the other side has it.
    need(op => $set->op(1, -1, 0));
    need(rcv => $queue->rcv(my $answer, 256, 8, 0));
    $answer eq 'reversed' or die "answer: $answer\n";
    need(attach => $memory->attach);
    $memory->read(0, length $text) eq reverse($text) or die "not reversed\n";
    $memory->stat->nattch == 2 or die 'nattch: ', $memory->stat->nattch, "\n";
    join(',', $set->getall) eq '1,0' or die 'values: ', join(',', $set->getall), "\n";
    $set->getncnt(1) == 0 or die "ncnt\n";
    # The other side ends.
    need(op => $set->op(0, -1, 0, 1, 1, 0));
    need(op => $set->op(1, 0, 0));
    $queue->stat->qnum == 0 or die "qnum\n";
    system $ENV{LIST} // ':';
    need(remove => $_->remove) for $memory, $set, $queue;
    print "served\n";
} elsif ($side eq 'ask') {
    my $queue = find(queue => sub { IPC::Msg->new($key, 0) });
    my $memory = need(memory => IPC::SharedMem->new($key, 8192, 0));
    my $set = need(set => IPC::Semaphore->new($key, 2, 0));
    need(rcv => $queue->rcv(my $word, 256, 7, 0));
    $word eq 'ready' or die "word: $word\n";
    need(shmread => shmread $memory->id, my $read, 0, length $text);
    $read eq $text or die "text\n";
    # Taken, and given back by the end of a child.
    my $child = need(fork => fork);
    if (!$child) { need(op => $set->op(0, -1, SEM_UNDO)); exit 0 }
    waitpid $child, 0;
    $set->getval(0) == 1 or die "undo\n";
    need(attach => $memory->attach);
    need(write => $memory->write(scalar reverse($text), 0, length $text));
    need(snd => $queue->snd(8, 'reversed'));
    need(op => $set->op(1, 1, 0));
    need(op => $set->op(0, 0, 0, 1, -1, 0));
    print "asked\n";
} else {
    die "usage: sysv.pl serve|ask KEY\n";
}
