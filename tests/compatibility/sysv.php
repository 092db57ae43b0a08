<?php
// SPDX-License-Identifier: MIT OR Apache-2.0
// The extensions sysvshm, sysvsem and sysvmsg, of two processes: sysv.php serve|ask KEY
// LIST is a command that is run while everything is there.
error_reporting(E_ALL);
set_error_handler(function ($number, $text) { throw new ErrorException($text); });

const TURNS = 2000;
[, $side, $key] = $argv + [1 => '', 2 => '0'];
$key = intval($key, 0);

function need(bool $holds, string $what): void {
    if (!$holds) {
        throw new Exception($what);
    }
}

// A counter that both sides raise, each turn under the semaphore.
function count_up(SysvSharedMemory $memory, SysvSemaphore $semaphore): void {
    for ($i = 0; $i < TURNS; $i++) {
        need(sem_acquire($semaphore), 'sem_acquire');
        shm_put_var($memory, 1, shm_get_var($memory, 1) + 1);
        need(sem_release($semaphore), 'sem_release');
    }
}

$wanted = ['name' => 'beta', 'list' => range(1, 100), 'pi' => M_PI];
if ($side === 'serve') {
    $memory = shm_attach($key, 65536, 0600);
    $semaphore = sem_get($key, 1, 0600, true);
    $queue = msg_get_queue($key, 0600);
    shm_put_var($memory, 1, 0);
    shm_put_var($memory, 2, $wanted);
    need(msg_send($queue, 1, ['go' => true]), 'msg_send');
    count_up($memory, $semaphore);
    need(msg_receive($queue, 2, $type, 8192, $said), 'msg_receive');
    need($said === ['done', $wanted], 'what was said');
    need(shm_get_var($memory, 1) === 2 * TURNS, 'the counter');
    need(msg_stat_queue($queue)['msg_qnum'] === 0, 'msg_qnum');
    system(getenv('LIST') ?: ':');
    need(msg_remove_queue($queue) && shm_remove($memory) && sem_remove($semaphore), 'remove');
    echo "served\n";
} elseif ($side === 'ask') {
    while (!msg_queue_exists($key)) {
        usleep(10000);
    }
    $queue = msg_get_queue($key);
    need(msg_receive($queue, 1, $type, 8192, $said) && $said === ['go' => true], 'msg_receive');
    $memory = shm_attach($key);
    $semaphore = sem_get($key);
    need(shm_has_var($memory, 2) && shm_get_var($memory, 2) === $wanted, 'the variable');
    count_up($memory, $semaphore);
    need(!msg_receive($queue, 9, $type, 16, $none, true, MSG_IPC_NOWAIT, $error), 'no message');
    need($error === MSG_ENOMSG, 'MSG_ENOMSG');
    need(msg_send($queue, 2, ['done', shm_get_var($memory, 2)]), 'msg_send');
    shm_detach($memory);
    echo "asked\n";
} else {
    fwrite(STDERR, "usage: sysv.php serve|ask KEY\n");
    exit(2);
}
